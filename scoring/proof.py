"""What a model must show before it scores anybody: its golden outputs, sensible scores for all kinds of people and ads,
and speed.

The model's author chooses its golden people, but not those that a worker draws (`scoring.probes`): so a model that is
bad for others is found out. A model made to do harm in a state that nobody drew is not: whoever pushes models is
trusted. This runs what it is given: run a model of unknown origin in a process of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.resources.abc import Traversable

import numpy as np

from scoring.attention import Arrays, AttentionModel, opened
from scoring.inputs import ModelInputs, empty_inputs
from scoring.manifest import ModelError
from scoring.probes import CANDIDATES, PEOPLE, probed_ads, probes
from scoring.rows import RING_SIZE

TRIES = 5
"""Runs of which the fastest counts: what else a machine does makes a run slower, and never faster."""
SCORE_MS_MAX = 10.0
"""The most that a person's candidates may take: the demo shop's model needs about 0.2 ms, so a worker keeps its pace
with one that takes as long as all the rest of a placement."""
ENCODE_MS_MAX = 250.0
"""The most that a call of the encoder may take: the compute thread waits for it whenever ads change. The demo shop's
model needs less than one."""

Clock = Callable[[], float]
"""Seconds of a clock that never goes back; the thread's own time, where others want the processor too."""


@dataclass(frozen=True, slots=True)
class Proof:
    """``parity``: the largest difference to the golden outputs. ``score_ms``: of one golden person's `CANDIDATES`."""

    version: str
    parity: float
    score_ms: float


def prove(place: Traversable, clock: Clock, score_ms_max: float = SCORE_MS_MAX) -> tuple[AttentionModel, Proof]:
    """The model in ``place``, shown to keep its contract, and what it has shown. Raises `ModelError`."""
    fix = f"see where with: salience verify --model {place}"
    model, golden, parity = opened(place)
    for inputs in (empty_inputs(1, 1, model.dim), empty_inputs(3, 2, model.dim)):
        _check_sense(place, model, inputs, "people of whom nothing is known", fix)
    score_ms = _score_ms(place, model, _many(golden), clock, score_ms_max)
    for inputs in _drawn(place, model, fix):
        _check_sense(place, model, inputs, "people and ads as they may come", fix)
        _score_ms(place, model, inputs, clock, score_ms_max)
    _check_encoder_pace(place, model, clock)
    return model, Proof(model.version, parity, score_ms)


def _drawn(place: Traversable, model: AttentionModel, fix: str) -> list[ModelInputs]:
    try:
        return list(probes(model))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(f"{place} does not encode ads as they may come ({error})", "that it does", fix) from error


def _check_sense(place: Traversable, model: AttentionModel, inputs: ModelInputs, whom: str, fix: str) -> None:
    """Check that it gives finite numbers, of the shapes that are asked for. Raises `ModelError`."""
    try:
        logit, attention = model.score(inputs)
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(f"{place} does not score {whom} ({error})", "that it does", fix) from error
    asked = inputs.candidates.shape[:2]
    if logit.shape != asked or attention.shape != (*asked, RING_SIZE):
        shapes = f"{asked} and {(*asked, RING_SIZE)}"
        raise ModelError(f"{place} gives {logit.shape} and {attention.shape} of {whom}", shapes, fix)
    if not (np.isfinite(logit).all() and np.isfinite(attention).all()):
        raise ModelError(f"{place}: no finite score of {whom}", "numbers", fix)


def _score_ms(place: Traversable, model: AttentionModel, inputs: ModelInputs, clock: Clock, most_ms: float) -> float:
    """Milliseconds per person of the first fast enough run. Raises `ModelError` if none is within ``most_ms``."""
    fastest = _fastest_ms(lambda: model.score(inputs), clock, PEOPLE * most_ms) / PEOPLE
    if fastest <= most_ms:
        return fastest
    raise ModelError(
        f"{place}: scoring one person's {CANDIDATES} candidates takes {fastest:.3g} ms",
        f"at most {most_ms:g} ms",
        "train a smaller one, or raise the bound: SALIENCE_MODEL_SCORE_MS_MAX; salience verify --model tells more",
    )


def _check_encoder_pace(place: Traversable, model: AttentionModel, clock: Clock) -> None:
    """Check that changed ads do not hold up the compute thread. Raises `ModelError`."""
    tokens, dense = probed_ads(model)
    fastest = _fastest_ms(lambda: model.encode(tokens, dense), clock, ENCODE_MS_MAX)
    if fastest > ENCODE_MS_MAX:
        raise ModelError(
            f"{place}: encoding {len(tokens)} ads takes {fastest:.4g} ms",
            f"at most {ENCODE_MS_MAX:g} ms",
            "train one with a smaller encoder: salience train --help",
        )


def _fastest_ms(run: Callable[[], object], clock: Clock, enough_ms: float) -> float:
    """Milliseconds of the fastest run; stops at the first run within ``enough_ms``."""
    fastest = float("inf")
    for _ in range(TRIES):
        started = clock()
        run()
        fastest = min(fastest, 1000 * (clock() - started))
        if fastest <= enough_ms:
            break
    return fastest


def _many(golden: Arrays) -> ModelInputs:
    """The golden people and candidates again and again, until there are enough."""
    out = {}
    for field in fields(ModelInputs):
        array = golden[field.name]
        array = array[np.arange(PEOPLE) % len(array)]
        if field.name.startswith("candidate"):
            array = array[:, np.arange(CANDIDATES) % array.shape[1]]
        out[field.name] = array
    return ModelInputs(**out)
