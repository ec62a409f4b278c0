"""What a model must show before it scores anybody: its golden outputs, sense where it knows nothing, and haste.

This runs what it is given. Whoever does not know where a model comes from runs it in a process of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.resources.abc import Traversable

import numpy as np

from scoring.attention import GOLDEN_TOLERANCE, Arrays, AttentionModel, ModelError, golden_difference, open_unproven
from scoring.inputs import ModelInputs, empty_inputs

PEOPLE, CANDIDATES = 8, 100
"""What haste is measured with: a handful of people, and as many candidates as the settings give each."""
TRIES = 5
"""Runs of which the fastest counts: what else a machine does makes a run slower, and never faster."""
SCORE_MS_MAX = 10.0
"""The most that a person's candidates may take: the demo shop's model needs about 0.2 ms, so a worker keeps its pace
with one that takes as long as all the rest of a placement."""

Clock = Callable[[], float]
"""Seconds of a clock that never goes back; the process's own time, where others want the processor too."""


@dataclass(frozen=True, slots=True)
class Proof:
    """``parity``: the largest difference to the golden outputs. ``score_ms``: of one person's `CANDIDATES`."""

    version: str
    parity: float
    score_ms: float


def prove(place: Traversable, clock: Clock, score_ms_max: float = SCORE_MS_MAX) -> tuple[AttentionModel, Proof]:
    """The model in ``place``, shown to keep its contract, and what it has shown. Raises `ModelError`."""
    fix = f"see where with: salience verify --model {place}"
    model, golden = open_unproven(place)
    parity = golden_difference(model, golden)
    if not parity <= GOLDEN_TOLERANCE:  # NaN, too, is not within
        reason = f"{place}: outputs differ from the golden ones by {parity:.3g}"
        raise ModelError(reason, f"at most {GOLDEN_TOLERANCE:g}", fix)
    _check_sense(place, model, fix)
    score_ms = _score_ms(model, golden, clock, score_ms_max)
    if score_ms > score_ms_max:
        raise ModelError(
            f"{place}: scoring one person's {CANDIDATES} candidates takes {score_ms:.3g} ms",
            f"at most {score_ms_max:g} ms",
            "train a smaller one, or raise the bound: SALIENCE_MODEL_SCORE_MS_MAX; salience verify --model tells more",
        )
    return model, Proof(model.version, parity, score_ms)


def _check_sense(place: Traversable, model: AttentionModel, fix: str) -> None:
    """Of people and ads of whom nothing is known: numbers, and one candidate as well as many."""
    for people, candidates in ((1, 1), (3, 2)):
        try:
            logit, attention = model.score(empty_inputs(people, candidates, model.dim))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ModelError(f"{place} does not run on empty inputs ({error})", "that it runs", fix) from error
        if logit.shape != (people, candidates) or not (np.isfinite(logit).all() and np.isfinite(attention).all()):
            raise ModelError(f"{place}: no finite score of people of whom nothing is known", "numbers", fix)


def _score_ms(model: AttentionModel, golden: Arrays, clock: Clock, enough_ms: float) -> float:
    """Of the fastest run, per person; no more runs than are needed to be below ``enough_ms``."""
    inputs = _many(golden)
    fastest = np.inf
    for _ in range(TRIES):
        started = clock()
        model.score(inputs)
        fastest = min(fastest, 1000 * (clock() - started) / PEOPLE)
        if fastest <= enough_ms:
            break
    return float(fastest)


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
