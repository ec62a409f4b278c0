"""An experiment's report: its message on ``experiment-reports``, the verdict in words, and what a guardrail decides."""

import msgspec
from msgspec import Struct

from scoring.interleaving import Preference, Score
from scoring.trial import Difference, Look
from streams.control_wire import Allocation, ExperimentSetting
from streams.experiments.registry import definition
from streams.wire import encode_json

SPLIT_P_MIN = 0.001
"""Below this the arms do not have the shares that they were given: something loses users of one of them."""


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
    """An arm: its users, its metrics, and each metric against the first arm's. ``share``: of the newest cohort."""

    arm: str
    users: int
    share: float = 0.0
    metrics: dict[str, float]
    against_first: dict[str, Against] = {}


class ExperimentReport(Struct, frozen=True, kw_only=True):
    """What an experiment shows at ``time_ms``. Topic ``experiment-reports`` (compacted), key ``experiment``.

    ``cohorts``: of a bandit, how many have come in, each with shares of its own; 1 of any other.
    """

    experiment: str
    number: int
    status: str
    time_ms: int
    primary: str
    verdict: str
    split_p_value: float
    crossed_users: int
    cohorts: int = 1
    arms: tuple[ArmReport, ...]


def report(
    setting: ExperimentSetting, look: Look, time_ms: int, allocation: Allocation | None = None
) -> ExperimentReport:
    """What ``look`` shows of the experiment."""
    shares = definition(setting, allocation).shares
    arms = tuple(
        ArmReport(
            arm=arm.arm,
            users=int(look.users[at]),
            share=float(shares[-1, at]),
            metrics={metric: values[at] for metric, values in look.values.items()},
            against_first={
                metric: _against(found) for metric, arms in look.differences.items() if (found := arms.get(at))
            },
        )
        for at, arm in enumerate(setting.arms)
    )
    return ExperimentReport(
        experiment=setting.experiment,
        number=setting.number,
        status=setting.status,
        time_ms=time_ms,
        primary=setting.primary,
        verdict=verdict(setting, look),
        split_p_value=look.split_p_value,
        crossed_users=look.crossed,
        cohorts=len(shares),
        arms=arms,
    )


def _against(found: Difference) -> Against:
    relative = None if found.relative != found.relative else found.relative  # NaN: nothing to compare with
    return Against(
        value=found.value,
        low=found.low,
        high=found.high,
        relative=relative,
        p_value=found.p_value,
        variance_cut=found.variance_cut,
    )


PREFERENCE = "preference"
"""The one metric of interleaved arms: the share of the clicks that each one's picks won."""


def duel_report(setting: ExperimentSetting, score: Score, time_ms: int) -> ExperimentReport:
    """What an interleaved experiment shows: clicks and their share for each ranking, and which is preferred."""
    clicks, found = score.clicks, score.preference
    against = (
        {}
        if found is None
        else {
            PREFERENCE: Against(
                value=found.value,
                low=found.low,
                high=found.high,
                relative=None,
                p_value=found.p_value,
                variance_cut=0.0,
            )
        }
    )
    arms = tuple(
        ArmReport(
            arm=arm.arm,
            users=score.people,
            share=arm.share,
            metrics={PREFERENCE: clicks[at] / max(sum(clicks), 1), "clicks": clicks[at]},
            against_first=against if at else {},
        )
        for at, arm in enumerate(setting.arms)
    )
    return ExperimentReport(
        experiment=setting.experiment,
        number=setting.number,
        status=setting.status,
        time_ms=time_ms,
        primary=PREFERENCE,
        verdict=_duel_verdict(setting, found),
        split_p_value=1.0,
        crossed_users=0,
        arms=arms,
    )


def _duel_verdict(setting: ExperimentSetting, found: Preference | None) -> str:
    if setting.status == "stopped" and setting.reason:
        return f"stopped: {setting.reason}"
    if found is None:
        return "too few people clicked picks of each yet"
    if found.low <= 0 <= found.high:
        return "neither ranking is surely preferred yet"
    preferred = setting.arms[int(found.value > 0)].arm
    return f"{preferred} is preferred: its picks win {(1 + abs(found.value)) / 2:.1%} of the clicks"


def verdict(setting: ExperimentSetting, look: Look) -> str:
    """One sentence for whoever decides."""
    if setting.status == "stopped" and setting.reason:
        return f"stopped: {setting.reason}"
    if look.split_p_value < SPLIT_P_MIN:
        return "the arms do not have their shares of the users: find out why before believing anything here"
    found = look.differences[setting.primary]
    better = {at: one for at, one in found.items() if one.low > 0}
    if better:
        best = max(better, key=lambda at: better[at].value)
        return f"{setting.arms[best].arm} is better by {_relative(better[best])} in {setting.primary}"
    worse = [setting.arms[at].arm for at, one in found.items() if one.high < 0]
    if worse and len(worse) == len(setting.arms) - 1:
        return f"{setting.arms[0].arm} is better than every other arm in {setting.primary}"
    if worse:
        return f"{', '.join(worse)} is worse than {setting.arms[0].arm} in {setting.primary}; the others are open"
    return "no difference is certain yet" if found else "too little yet"


def _relative(found: Difference) -> str:
    return f"{found.relative:.1%}" if found.relative == found.relative else f"{found.value:.4g}"


def breached(setting: ExperimentSetting, look: Look) -> str | None:
    """Why a running experiment must end: an arm that surely costs more than a guardrail allows; None where none."""
    for rail in setting.guardrails:
        first = look.values[rail.metric][0]
        for at, found in look.differences[rail.metric].items():
            if first > 0 and found.high < -rail.most_loss * first:  # of nothing no share is lost
                loss = f"loses {-found.value / first:.1%}, surely more than {rail.most_loss:.1%}"
                return f"guardrail {rail.metric}: {setting.arms[at].arm} {loss}"
    return None


encode_report = encode_json
decode_report = msgspec.json.Decoder(ExperimentReport).decode
