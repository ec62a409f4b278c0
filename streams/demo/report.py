"""The demo's results: at the end one object for machines, during the run a snapshot for the view."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from streams.demo.meter import Meter
from streams.wire import Ad, Placement, Tone

UNHEARD_SAID_S = 1.0
"""Silence of the broker from which it is reported: it answers within milliseconds, and is asked every second."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run; click rates are clicks per impression, None without an impression.

    Intervals are 95 % intervals of the click rates. Their unit is the user, since tastes and arms are by user; for the
    first few users they are at least Wilson's (`scoring.confidence.by_person`). ``ctr_random`` is of the control arm,
    whose placements are ranked at random.

    ``p50_ms`` and ``p99_ms``: from an event handed to the producer until a subscriber has read the placement that it
    caused; only events with a placement, without the warm-up. ``unanswered``: users whose newest event has no placement
    of its time or later, and who got none for the last 5 s (`streams.demo.meter.UNANSWERED_S`) before the end.

    ``guarantee``: of the workers; None where they are not the demo's own.

    ``calibration``: clicks over predicted clicks, as on the console and in the metrics; None where no outcome is known.

    ``unread``: topics that ``dead_letters`` and ``calibration`` have not read to the end.
    """

    events: int
    placements: int
    p50_ms: float | None
    p99_ms: float | None
    unanswered: int
    ctr_engine: float | None
    ctr_random: float | None
    ctr_engine_interval: tuple[float, float] | None
    ctr_random_interval: tuple[float, float] | None
    impressions_engine: int
    impressions_random: int
    calibration: float | None
    calibration_attention: float | None
    dead_letters: int
    seconds: float
    guarantee: str | None
    broker: str
    unread: tuple[str, ...]

    @classmethod
    def of(
        cls,
        meter: Meter,
        now_s: float,
        *,
        dead_letters: int,
        seconds: float,
        guarantee: str | None,
        broker: str,
        calibrations: tuple[float | None, float | None] = (None, None),
        unread: tuple[str, ...] = (),
    ) -> "Report":
        """The report of what ``meter`` has counted up to ``now_s``."""
        p50, p99 = meter.latency_ms([50, 99])
        engine, control = meter.engine, meter.control
        return cls(
            events=meter.events.total,
            placements=meter.placements.total,
            p50_ms=p50,
            p99_ms=p99,
            unanswered=meter.unanswered(now_s),
            ctr_engine=_rounded(engine.ctr),
            ctr_random=_rounded(control.ctr),
            ctr_engine_interval=_both_rounded(engine.interval),
            ctr_random_interval=_both_rounded(control.interval),
            impressions_engine=engine.impressions,
            impressions_random=control.impressions,
            calibration=calibrations[0],
            calibration_attention=calibrations[1],
            dead_letters=dead_letters,
            seconds=round(seconds, 1),
            guarantee=guarantee,
            broker=broker,
            unread=unread,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run: ``phase`` in words, the report so far, present rates, and a placement to look at.

    ``ads`` and ``tones``: by the ad's id. ``unheard_s``: how long the broker has not answered; 0 where it answers.
    """

    phase: str
    report: Report
    events_per_s: float
    placements_per_s: float
    sample: Placement | None
    ads: Mapping[str, Ad]
    tones: Mapping[str, Tone]
    unheard_s: float = 0.0


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 5)


def _both_rounded(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (round(interval[0], 5), round(interval[1], 5))
