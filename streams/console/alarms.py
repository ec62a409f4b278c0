"""What is wrong now, by the conditions of the alert rules but without their waiting times. No I/O.

Prometheus waits before it wakes somebody; whoever looks at a page wants to see a fault at once. Each alarm has the name
of the alert whose runbook in deploy/OPERATIONS.md says what to do.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from scoring.units import HOUR_MS
from streams.console.clicks import SERVES_MS, Accuracy, ModelQuality
from streams.console.refused import RECENT_MS, RefusedKind
from streams.control_wire import Drift
from streams.lag.arithmetic import Status
from streams.lag.board import GroupLag
from streams.lag.monitor import News
from streams.wire import Tone

TIME_LAG_S = 30.0
GROWING_S = 5.0
CALIBRATION = (0.8, 1.25)
AUC_LEAST = 0.55
"""With a lower AUC, a ranking is hardly better than chance."""
ERRORS = 4
"""Standard errors beyond which a figure is no chance, even if it is checked all day."""
DEAD_SHARE = 0.01
DRIFT_RECENT_MS = 1_800_000
WANTED_MS = 6 * HOUR_MS
"""The times, shares and errors are those of deploy/prometheus/alerts.yml."""
About = dict[str, str | int | float | None]
SAME_TOLD = 3
"""Alarms shown of one alert, the longest or else the first: a cluster that stops has one for every partition."""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: of the alert. ``red``: shoppers see old or no placements now. ``about``: values for its sentence, None
    where unknown.

    ``more``: how many further alarms of the alert are not shown.
    """

    name: str
    red: bool
    about: About
    more: int = 0


def alarms(
    news: News,
    group: GroupLag | None,
    models: Sequence[ModelQuality],
    drifts: Sequence[Drift],
    refused: Sequence[RefusedKind],
    tones: Iterable[Tone],
    now_ms: int,
    stream_ms: int,
    before: Sequence[Alarm] = (),
    wanted: Iterable[Drift] = (),
) -> list[Alarm]:
    """Everything that is wrong, red alarms first. ``stream_ms``: time that the outcomes have reached, by which drift
    and models are judged; outcomes may stand still while reviews go on. ``before``: the alarms of the last snapshot.
    ``wanted``: the latest wish for another model in place of each. They and ``drifts`` are told the newest first.
    """
    found = [*_of_lag(news, group), *_of_clicks(models, drifts, wanted, stream_ms), *_of_tones(tones, now_ms)]
    return sorted([*_told(found, before), *_of_letters(group, refused)], key=lambda alarm: not alarm.red)


def _told(found: Iterable[Alarm], before: Sequence[Alarm]) -> Iterator[Alarm]:
    """The alarms to show of each alert, the longest or else the first; the last says how many more there are.

    Those shown ``before`` keep their places until others are about twice as long: seconds change with every poll, and
    whoever listens to the page hears each alarm that comes or moves.
    """
    places = {(alarm.name, alarm.about.get("partition")): place for place, alarm in enumerate(before)}

    def rank(alarm: Alarm) -> tuple[int, int, float]:
        if (seconds := alarm.about.get("seconds")) is None:
            return 0, 0, 0.0
        place = places.get((alarm.name, alarm.about.get("partition")), len(places))
        return -int(float(seconds)).bit_length(), place, -float(seconds)

    by_name: dict[str, list[Alarm]] = {}
    for alarm in found:
        by_name.setdefault(alarm.name, []).append(alarm)
    for same in by_name.values():
        *most, last = sorted(same, key=rank)[:SAME_TOLD]
        yield from most
        yield msgspec.structs.replace(last, more=len(same) - len(most) - 1)


def _of_lag(news: News, group: GroupLag | None) -> Iterator[Alarm]:
    if news.stale:
        yield Alarm(
            name="SalienceLagUnknown", red=True, about={"seconds": round(news.age_s, 1), "error": news.error[:500]}
        )
        return
    if group is None or group.state in ("empty", "dead"):  # the embedded broker names no member of any group
        yield Alarm(name="SalienceGroupEmpty", red=True, about={})
    for lag in group.partitions if group is not None else ():
        about: About = {
            "partition": f"{lag.topic}[{lag.partition}]",
            "status": lag.status.value,
            "behind": lag.lag or 0,
            "seconds": round(max(lag.stuck_s, lag.time_lag_s or 0.0), 1),
            "owner": lag.owner or "",
        }
        if lag.status in (Status.STALL, Status.STOP):
            yield Alarm(name="SaliencePartitionStuck", red=True, about=about)
        elif lag.status is Status.REWIND:
            yield Alarm(name="SalienceOffsetsRewound", red=True, about=about)
        elif (lag.time_lag_s or 0.0) > TIME_LAG_S:
            yield Alarm(name="SalienceTimeLag", red=True, about=about)
        elif lag.status is Status.WARN or ((lag.time_lag_s or 0.0) > GROWING_S and lag.catch_up_s is None):
            yield Alarm(name="SalienceLagGrowing", red=False, about=about)


def _of_clicks(
    models: Sequence[ModelQuality], drifts: Sequence[Drift], wanted: Iterable[Drift], stream_ms: int
) -> Iterator[Alarm]:
    stopped = {model.model for model in models if model.newest_ms < stream_ms - SERVES_MS}
    for model in models:
        if model.model in stopped:
            continue
        layer = model.layer
        day_blind = _blind(layer.day_auc, layer.day_clicks)
        if day_blind or _off(layer) or _blind(layer.auc, layer.clicks):
            auc = layer.day_auc if day_blind else layer.auc
            about: About = {"model": model.model, "calibration": layer.calibration, "auc": auc}
            yield Alarm(name="SalienceCalibrationOff", red=False, about=about)
    for drift in drifts:
        if drift.time_ms >= stream_ms - DRIFT_RECENT_MS:
            yield _of_drift("SalienceDrift", drift)
    for wish in wanted:
        if wish.time_ms >= stream_ms - WANTED_MS and wish.model not in stopped:
            yield _of_drift("SalienceNewModelWanted", wish)


def _of_drift(name: str, drift: Drift) -> Alarm:
    about: About = {
        "lane": drift.lane,
        "model": drift.model,
        "detector": drift.detector,
        "answer": drift.answer,
        "was": round(drift.was, 4),
        "now": round(drift.now, 4),
        "time_ms": drift.time_ms,
    }
    return Alarm(name=name, red=False, about=about)


def _off(figures: Accuracy) -> bool:
    """Whether clicks are too many or too few. A count's standard error is its square root; the greater count is used,
    since small counts stray further above the expectation than below.
    """
    if figures.calibration is None or CALIBRATION[0] <= figures.calibration <= CALIBRATION[1]:
        return False
    greater = max(figures.clicks, figures.expected)
    return abs(figures.clicks - figures.expected) > ERRORS * math.sqrt(greater)


def _blind(auc: float | None, clicks: int) -> bool:
    """Whether the ranking is hardly better than chance, by its AUC over so many clicks. The standard error of an AUC of
    0.5, with few clicks among many others, is 1 / sqrt(12 clicks), and hardly another for a lower AUC (Hanley and
    McNeil 1982).
    """
    return auc is not None and (AUC_LEAST - auc) * math.sqrt(12 * clicks) > ERRORS


def _of_tones(tones: Iterable[Tone], now_ms: int) -> Iterator[Alarm]:
    """Alarms of reviews that have turned, the newest first."""
    turned = [(tone.turned_ms, tone) for tone in tones if tone.turned_ms is not None]
    for turned_ms, tone in sorted(turned, key=lambda each: -each[0]):
        if turned_ms >= now_ms - DRIFT_RECENT_MS:
            about: About = {"of": tone.of, "name": tone.name, "tone": round(tone.tone, 2)}
            yield Alarm(name="SalienceToneTurned", red=False, about=about)


def _of_letters(group: GroupLag | None, refused: Sequence[RefusedKind]) -> Iterator[Alarm]:
    for topic in sorted({kind.topic for kind in refused if kind.recent}):
        kinds = [kind for kind in refused if kind.topic == topic and kind.recent]
        per_s = sum(kind.recent for kind in kinds) / (RECENT_MS / 1000)
        comes = group.topics[topic].produced_per_s if group is not None and topic in group.topics else 0.0
        if per_s > DEAD_SHARE * comes:
            worst = max(kinds, key=lambda kind: kind.recent)
            yield Alarm(
                name="SalienceDeadLetters",
                red=False,
                about={"topic": topic, "count": sum(kind.recent for kind in kinds), "error": worst.error},
            )
