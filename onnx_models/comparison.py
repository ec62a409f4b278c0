"""All models on one test, in three modes, with the cost of each, and how sure its difference to the chosen model is.

*frozen*: users' state and models as they were when the test began. *stateful*: the state follows the stream, and so do
models that learn one example at a time. *online*: the click layer on top, which learns along the stream. Each model is
fitted in a process of its own, as many at once as asked for.
"""

import gc
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from onnx_models.alternatives import Alternative
from onnx_models.alternatives.nets import Net
from onnx_models.bootstrap import Draws, Interval, interval
from onnx_models.drill import Drills, hold
from onnx_models.examples import Examples
from onnx_models.metrics import auc, calibration, grouped_auc, log_loss, ndcg, normalised_entropy, rounded
from onnx_models.trial import Trial, logit_of
from scoring.arrays import Floats

MODES = ("frozen", "stateful", "online")
PEOPLE, CANDIDATES = 10, 100
"""Size of a timed prediction: a hundred candidates for each of ten people."""
RUNS = 10
"""Timed predictions: other models are fitted meanwhile, and disturb most of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of a model: probabilities by mode ``[E]`` (for a network also "unnamed": all ids hidden), microseconds
    and thousand operations a candidate, seconds to fit; for the chosen model, its click layer's results in the drills.
    """

    name: str
    chances: dict[str, Floats]
    us: float
    kflop: float
    fit_s: float
    drills: Drills | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A model in a mode. ``gauc`` and ``ndcg_10`` only for frozen state, NaN where nobody has both a click and a
    non-click; differences are to the chosen model.
    """

    auc: float
    log_loss: float
    normalised_entropy: float
    calibration: float
    gauc: float | None = None
    ndcg_10: float | None = None
    us_per_candidate: float = 0.0
    kflop_per_candidate: float = 0.0
    auc_difference: Interval | None = None
    log_loss_difference: Interval | None = None

    @property
    def ordered(self) -> tuple[float, float]:
        """How well people's own candidates are ordered, gAUC and NDCG@10: NaN where it is not known."""
        return (math.nan if self.gauc is None else self.gauc, math.nan if self.ndcg_10 is None else self.ndcg_10)

    def named(self) -> dict[str, Any]:
        """As numbers by name."""
        out: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None:
                out[name] = value.named() if isinstance(value, Interval) else rounded(value)
        return out


@dataclass
class Comparison:
    """Models by name, each by mode; the others are compared with ``chosen``."""

    chosen: str
    lines: dict[str, dict[str, Line]] = field(default_factory=dict)
    steps: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """What the chosen model gains from mode to mode: AUC and log loss."""


def _begin_fits() -> None:
    """In a forked process: leave Ctrl-C to the one that forked it, and let no collection look at what it had then.

    That would copy its pages, and end what works by threads that are not here, as Kafka clients do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


def fit_all(
    models: Sequence[Alternative], trial: Trial, chosen: str, jobs: int, done: Callable[[Outcome], None]
) -> dict[str, Outcome]:
    """Fit every model, the slowest first; return what each predicts. ``done`` is called with each as it is ready.

    An interrupt, or a model that cannot learn, ends all fits at once, since a fit takes minutes.
    """
    out: dict[str, Outcome] = {}
    others, fork = multiprocessing.active_children(), multiprocessing.get_context("fork")
    _SHARED.update(trial=trial, chosen=chosen, models={model.name: model for model in models})
    try:
        # A forked process sees the trial without a copy. Ctrl-C reaches all processes; only this one answers it.
        with ProcessPoolExecutor(jobs, fork, _begin_fits) as pool:
            try:
                pending: list[Future[Outcome]] = [pool.submit(_outcome, model.name) for model in models]
                for future in as_completed(pending):
                    outcome = future.result()
                    out[outcome.name] = outcome
                    done(outcome)
            except BaseException:  # else leaving the pool would wait for every fit
                for child in multiprocessing.active_children():
                    if child not in others:
                        child.kill()
                raise
    finally:
        _SHARED.clear()
    return {model.name: out[model.name] for model in models}


_SHARED: dict[str, Any] = {}


def _outcome(name: str) -> Outcome:
    trial: Trial = _SHARED["trial"]
    model: Alternative = _SHARED["models"][name]
    start = time.perf_counter()
    model.fit(trial.learn, trial.items)
    fit_s = time.perf_counter() - start
    frozen = model.predict(trial.frozen)
    us = _us_per_candidate(model, trial.frozen)
    stateful = model.predict(trial.stateful, follow=True)
    layer, online = trial.stream.observe(logit_of(stateful), trial.stateful)
    chances = {"frozen": frozen, "stateful": stateful, "online": online.predicted}
    if isinstance(model, Net):
        chances["unnamed"] = model.predict_unnamed(trial.stateful)
    stood = hold(trial, model.predict, len(layer.alarms)) if name == _SHARED["chosen"] else None
    return Outcome(name, chances, us, model.kflop, fit_s, stood)


def _us_per_candidate(model: Alternative, examples: Examples) -> float:
    """The fastest of `RUNS` over `CANDIDATES` items for each of `PEOPLE`, taken from the examples.

    A network has encoded its items by then, as a worker encodes an ad when it comes and not when somebody is scored.
    """
    count = min(PEOPLE, len(examples))
    people = np.repeat(np.linspace(0, len(examples) - 1, count).astype(np.int64), CANDIDATES)
    items = np.resize(examples.item, len(people))
    asked = replace(examples.at(people), item=items)
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        model.predict(asked)
        taken.append(time.perf_counter() - start)
    return min(taken) / len(people) * 1e6


def compare(trial: Trial, outcomes: dict[str, Outcome], chosen: str, seed: int) -> Comparison:
    """The table: each model in each mode, and its paired difference to the chosen one."""
    test, out = trial.stateful, Comparison(chosen)
    draws = Draws(test.label.astype(np.float64), test.row, seed)
    drawn = {
        mode: {name: (draws.auc(o.chances[mode]), draws.log_loss(o.chances[mode])) for name, o in outcomes.items()}
        for mode in MODES
    }
    for mode, models in drawn.items():
        out.lines[mode] = {}
        for name, (aucs, losses) in models.items():
            line = _line(test, outcomes[name], still=mode == "frozen", mode=mode)
            if name != chosen:
                line = replace(
                    line,
                    auc_difference=interval(aucs, models[chosen][0], draws.people),
                    log_loss_difference=interval(losses, models[chosen][1], draws.people),
                )
            out.lines[mode][name] = line
    for before, after in pairwise(MODES):
        first, then = drawn[before][chosen], drawn[after][chosen]
        out.steps[f"{after}_over_{before}"] = {
            "auc": interval(then[0], first[0], draws.people),
            "log_loss": interval(then[1], first[1], draws.people),
        }
    return out


def _line(test: Examples, outcome: Outcome, *, still: bool, mode: str) -> Line:
    labels, chances = test.label, outcome.chances[mode]
    return Line(
        auc(labels, chances),
        log_loss(labels, chances),
        normalised_entropy(labels, chances),
        calibration(labels, chances),
        grouped_auc(labels, chances, test.row) if still else None,
        ndcg(labels, chances, test.row) if still else None,
        outcome.us,
        outcome.kflop,
    )
