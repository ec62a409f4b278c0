"""An experiment's report: its message on ``experiment-reports``, and what a guardrail decides."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from scoring.confidence import ONE_SHARE_MAX
from scoring.interleaving import Preference, Score
from scoring.trial import Difference, Look
from streams.control_wire import Allocation, ExperimentSetting
from streams.experiments.findings import (
    PREFERENCE,
    SPLIT_P_MIN,
    Code,
    Finding,
    duel_finding,
    duel_look,
    one_decides,
    trial_finding,
    trial_look,
)
from streams.experiments.registry import definition
from streams.experiments.watched import Watched
from streams.wire import encode_json

SILENT_MS = 600_000
"""A running experiment whose newest report is older is hardly judged: most referees look every ten seconds."""


class Against(Struct, frozen=True, kw_only=True):
    """An arm's metric less the first arm's, with its always-valid 95 % interval.

    ``relative`` is null where the first arm has none of it. ``variance_cut``: what the past explained.
    """

    value: float
    low: float
    high: float
    relative: float | None
    p_value: float
    variance_cut: float


class ArmReport(Struct, frozen=True, kw_only=True):
    """An arm: its users, its metrics, and each metric against the first arm's. ``share``: of the newest cohort.

    ``revenue_micros`` is value a user and day since exposure, or a user: the report's ``value_per``. A metric is null
    where there is none of what it is divided by.
    """

    arm: str
    users: int
    share: float = 0.0
    metrics: dict[str, float | None]
    against_first: dict[str, Against] = {}


class Doubt(Struct, frozen=True, kw_only=True):
    """Why an arm's ``metric`` is not compared: one person has ``share`` of what it is divided by, ``expected`` at most.

    ``words``: the same, with what to do.
    """

    metric: str
    arm: str
    share: float
    expected: float = ONE_SHARE_MAX
    words: str


class ExperimentReport(Struct, frozen=True, kw_only=True):
    """What an experiment shows, published at ``time_ms``. Topic ``experiment-reports`` (compacted), key ``experiment``.

    ``verdict``: what ``finding`` says, for people; a referee of before it has told the sentence alone.
    ``last_finding``: of a stopped experiment, what the last look had found; null where it runs, or the referee told
    only the stop. ``cohorts``: of a bandit, how many have come in, each with shares of its own; 1 of any other.
    ``value_per``: whose ``revenue_micros`` is told; a user's of what had been stopped before a day of theirs was.
    ``judged_ms``: up to when the last look knew what people had done; 0 where a referee of before does not tell.
    ``unwatched``: how many times, meanwhile, the referee had no place for somebody, who then counts in no experiment.
    """

    experiment: str
    number: int
    status: str
    time_ms: int
    primary: str
    value_per: Literal["user", "user_day"] = "user_day"
    verdict: str
    finding: Finding | None = None
    last_finding: Finding | None = None
    split_p_value: float
    crossed_users: int
    cohorts: int = 1
    arms: Annotated[tuple[ArmReport, ...], Meta(min_length=1)]
    doubts: tuple[Doubt, ...] = ()
    judged_ms: int = 0
    unwatched: int = 0

    def is_silent(self, now_ms: int) -> bool:
        """Whether there should be a newer one: no referee judges the experiment now, or one that hardly ever looks."""
        return self.status == "running" and now_ms - self.time_ms > SILENT_MS


class Verdicts:
    """What a referee says of its looks: a running experiment's verdict when it finds something else than before.

    Its figures differ at every look: a hundred experiments would write nearly a million lines a day.
    """

    def __init__(self) -> None:
        self._said: dict[int, tuple[Code, tuple[str, ...]]] = {}

    def news(self, reports: Iterable[ExperimentReport]) -> list[ExperimentReport]:
        """Those of a look's ``reports`` whose verdict is to be said."""
        found = {one.number: (one, one.finding) for one in reports if one.status == "running"}
        shows = {number: (told.code, told.arms) for number, (_, told) in found.items() if told is not None}
        news = [one for number, (one, _) in found.items() if shows.get(number) != self._said.get(number)]
        self._said = shows
        return news


def report_of(watched: Watched, time_ms: int) -> ExperimentReport:
    """What the last look at an experiment shows, of the experiment's kind. Raises `ValueError` where there was none."""
    setting = watched.setting
    if watched.score is not None:
        made = duel_report(setting, watched.score, time_ms)
    elif watched.last is not None:
        made = report(setting, watched.last, time_ms, watched.allocation)
    else:
        raise ValueError(f"{setting.experiment} has not been looked at")
    return msgspec.structs.replace(made, judged_ms=watched.judged_ms, unwatched=watched.unwatched)


def report(
    setting: ExperimentSetting, look: Look, time_ms: int, allocation: Allocation | None = None
) -> ExperimentReport:
    """What ``look`` shows of the experiment."""
    shares, found = definition(setting, allocation).shares, trial_finding(setting, look)
    arms = tuple(
        ArmReport(
            arm=arm.arm,
            users=int(look.users[at]),
            share=float(shares[-1, at]),
            metrics={
                metric: None if at in look.undefined.get(metric, ()) else values[at]
                for metric, values in look.values.items()
            },
            against_first={metric: _against(one) for metric, arms in look.differences.items() if (one := arms.get(at))},
        )
        for at, arm in enumerate(setting.arms)
    )
    return ExperimentReport(
        **_about(setting, time_ms, found),
        primary=setting.primary,
        value_per="user_day" if look.by_days else "user",
        last_finding=trial_look(setting, look) if setting.status == "stopped" else None,
        split_p_value=look.split_p_value,
        crossed_users=look.crossed,
        cohorts=len(shares),
        arms=arms,
        doubts=tuple(
            Doubt(metric=metric, arm=arms[at].arm, share=share, words=one_decides(setting, metric, at, share).sentence)
            for metric, decided in look.heaviest.items()
            for at, share in sorted(decided.items())
        ),
    )


def _about(setting: ExperimentSetting, time_ms: int, found: Finding) -> dict[str, Any]:
    """What reports of both kinds of experiment tell."""
    told = {name: getattr(setting, name) for name in ("experiment", "number", "status")}
    return told | {"time_ms": time_ms, "verdict": found.sentence, "finding": found}


def _against(found: Difference | Preference) -> Against:
    told = {"relative": None, "variance_cut": 0.0} | asdict(found)
    if told["relative"] != told["relative"]:  # NaN: nothing to compare with
        told["relative"] = None
    return Against(**told)


def duel_report(setting: ExperimentSetting, score: Score, time_ms: int) -> ExperimentReport:
    """What an interleaved experiment shows: clicks and their share for each ranking, and which is preferred."""
    clicks, found = score.clicks, score.preference
    shown = duel_finding(setting, score)
    against = {} if found is None else {PREFERENCE: _against(found)}
    arms = tuple(
        ArmReport(
            arm=arm.arm,
            users=score.people,
            share=arm.share,
            metrics={PREFERENCE: clicks[at] / sum(clicks) if sum(clicks) else None, "clicks": clicks[at]},
            against_first=against if at else {},
        )
        for at, arm in enumerate(setting.arms)
    )
    return ExperimentReport(
        **_about(setting, time_ms, shown),
        primary=PREFERENCE,
        last_finding=duel_look(setting, score) if setting.status == "stopped" else None,
        split_p_value=1.0,
        crossed_users=0,
        arms=arms,
    )


def breached(setting: ExperimentSetting, look: Look) -> str | None:
    """Why a running experiment must end: an arm surely loses more than a guardrail allows. None if no arm does.

    Nor where the arms do not have their shares of the users: whoever is missing may be all the loss, or hide one.
    """
    if look.split_p_value < SPLIT_P_MIN:
        return None
    for rail in setting.guardrails:
        first = look.values[rail.metric][0]
        for at, found in look.differences[rail.metric].items():
            if first > 0 and found.high < -rail.most_loss * first:  # where the first arm has 0, no share can be lost
                loss = f"loses {-found.value / first:.1%}, surely more than {rail.most_loss:.1%}"
                return f"guardrail {rail.metric}: {setting.arms[at].arm} {loss}"
    return None


encode_report = encode_json
decode_report = msgspec.json.Decoder(ExperimentReport).decode
