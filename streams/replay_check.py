"""Runs one worker to the end of a filled log, stops it, and compares what it did with the pure core."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scoring.units import DAY_MS
from streams.audit import DIFFERENCES_TOLD, Difference, Expected, Seen, audit, compare, pure_core
from streams.demo.worker import WorkerProcess
from streams.lag.watch import Lag, LagWatch
from streams.layer_audit import Core, prediction_difference
from streams.layer_audit import differences as layer_differences
from streams.logs import Log
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the log was filled, and how the worker is to run."""

    bootstrap: str
    prefix: str
    partitions: int
    guarantee: str

    @property
    def group(self) -> str:
        return f"{self.prefix}replay"


class Report(msgspec.Struct, kw_only=True):
    """The result. ``events_per_s``: from when the first lane was seen taken over until lag 0, measured from outside.

    ``differences``: the first users whose row is not the pure core's. ``placements_stale``: users whose last placement
    does not follow from their row. ``repeated``: events whose id occurred before in the log for their user and topic;
    ``duplicates`` are fewer where a row no longer remembers the first. ``outcomes_doubled``: repeated outcomes beyond
    those of the core, which repeats one for two people who share event id, ad and millisecond; below 0 if fewer.
    ``predictions_equal``: the click layers learnt the same outcomes to the same weights, and the worker predicted as
    the pure core did for each impression with a known outcome; ``prediction_difference`` is the largest.
    """

    prefix: str
    guarantee: str
    events: int
    applied: int
    duplicates: int
    repeated: int
    replayed: int
    dead_letters: int
    rerouted: int
    unknown_ads: int
    users: int
    users_without_placement: int
    placements: int
    placements_doubled: int
    placements_stale: int
    slices: int
    state_equal: bool
    totals_equal: bool
    outcomes: int
    outcomes_doubled: int
    predictions_equal: bool
    prediction_difference: float
    differences: list[Difference]
    filled_per_s: float
    seconds: float
    events_per_s: float

    @property
    def ok(self) -> bool:
        """Whether there were events, each was counted once, every user has a placement, and nothing else went wrong."""
        doubled = (self.placements_doubled, self.outcomes_doubled) if self.guarantee == "exactly_once" else ()
        failures = any((self.dead_letters, self.users_without_placement, self.placements_stale, *doubled))
        equal = self.state_equal and self.totals_equal and self.predictions_equal
        return self.events > 0 and equal and not failures


async def run_worker(log: Log, plan: Plan, home: Path, progress: Callable[[Lag], None]) -> float:
    """Run a worker until it has consumed the whole log; stop it; return the seconds it took (`LagWatch.until_zero`).

    Settings in the environment reach it; those of ``plan`` override them. Raises `WorkerFailedError`, `StalledError`.
    """
    span_ms = log.events[-1].time_ms - log.events[0].time_ms if log.events else 0
    settings = {
        "bootstrap": plan.bootstrap,
        "topic_prefix": plan.prefix,
        "group": plan.group,
        "guarantee": plan.guarantee,
        "home": str(home),
        "idle_ttl_ms": str(span_ms + DAY_MS),  # else a long log would make it forget users; the pure core does not
    }
    watch = LagWatch(plan.bootstrap, plan.prefix, plan.group)
    with WorkerProcess(settings, home / "worker.log") as worker:
        return await watch.until_zero(len(log.events), worker.check, progress)


async def check(
    log: Log, plan: Plan, filled_per_s: float, seconds: float, progress: Callable[[int], None] = lambda _records: None
) -> Report:
    """Read the topics and compare. ``progress`` is called after every read with the number of its records."""
    from streams.app import learning, make_engine  # noqa: PLC0415 - Faust with it, of no use to those who only run a worker

    settings = Settings()
    how = learning(settings) if settings.scoring else None
    core = Core(make_engine(settings), how) if how is not None else None
    return report_of(
        plan,
        pure_core(log, plan.partitions, rules=settings.cleaning, core=core),
        await audit(plan.bootstrap, plan.prefix, progress),
        filled_per_s=filled_per_s,
        seconds=seconds,
    )


def report_of(plan: Plan, expected: Expected, seen: Seen, *, filled_per_s: float, seconds: float) -> Report:
    """Compare what was seen with what was expected."""
    totals = seen.totals
    events = expected.totals["events_in"]
    differences = compare(expected.state, seen.state)
    unlike = layer_differences(expected.layers, seen.layers)
    return Report(
        prefix=plan.prefix,
        guarantee=plan.guarantee,
        events=events,
        applied=totals["applied"],
        repeated=expected.repeated,
        duplicates=totals["duplicate"],
        replayed=totals["replayed"],
        dead_letters=len(seen.dead),
        rerouted=totals["rerouted"],
        unknown_ads=totals["unknown_ads"],
        users=len(seen.state.users),
        users_without_placement=len(set(expected.state.users) - seen.placed.keys()),
        placements=seen.placements.total(),
        placements_doubled=len(seen.doubled),
        placements_stale=len(seen.stale(plan.partitions)),
        slices=seen.slices,
        state_equal=not differences,
        totals_equal=all(totals[name] == count for name, count in expected.totals.items()),
        outcomes=len(seen.layers.told),
        outcomes_doubled=seen.layers.repeated - expected.layers.repeated,
        predictions_equal=not unlike,
        prediction_difference=prediction_difference(expected.layers, seen.layers),
        differences=differences + [Difference("", *each) for each in unlike[: DIFFERENCES_TOLD - len(differences)]],
        filled_per_s=round(filled_per_s),
        seconds=round(seconds, 3),
        events_per_s=round(events / seconds) if seconds else 0.0,
    )
