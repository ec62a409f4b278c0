"""What an experiment shows: a code for machines, and a sentence for people who decide. No I/O."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from scoring.confidence import ONE_SHARE_MAX
from scoring.interleaving import Score
from scoring.trial import Difference, Look
from streams.control_wire import ExperimentSetting

SPLIT_P_MIN = 0.001
"""Below this, users do not come to the arms in the shares given (SRM): something loses users of one arm."""
PREFERENCE = "preference"
"""The one metric of interleaved arms: the share of the clicks that an arm's picks won."""

Code = Literal[
    "stopped",
    "unequal_shares",
    "better",
    "first_is_better",
    "worse",
    "open",
    "too_little",
    "one_decides",
    "preferred",
    "neither_preferred",
    "too_few_clicks",
    "one_clicks",
]
_AT_MOST = f"({ONE_SHARE_MAX:.0%} at most): probably a bot or a page that reloads"
BASES: Mapping[str, str] = {
    "ctr": "impressions", "cvr": "clicks", "revenue_micros": "weight", "viewed_s": "impressions",
    "diversity": "impressions",
}  # fmt: skip
"""What each metric is divided by, in a word. A user and day are worth as much as any other but for a bandit's weights.
"""
_HAVING = {"cvr": "users who clicked", "revenue_micros": "users"}
_DOERS = {
    "ctr": "users who clicked", "cvr": "users who bought", "revenue_micros": "users who bought",
    "viewed_s": "users who viewed an ad", "diversity": "users who saw another category",
}  # fmt: skip
_UNDONE = {
    "ctr": "users who left an ad unclicked", "cvr": "users who clicked and did not buy",
    "diversity": "users who saw a category again",
}  # fmt: skip
SENTENCES: Mapping[Code, str] = {
    "stopped": "stopped: {reason}",
    "unequal_shares": "the arms do not have their shares of the users: find out why before believing anything here",
    "better": "{arms} is better by {by} in {metric}",
    "first_is_better": "{first} is better than every other arm in {metric}",
    "worse": "{arms} is worse than {first} in {metric}; the others are open",
    "open": "no difference is certain yet",
    "too_little": "too little yet",
    "one_decides": "one person made {by} of {arms}'s {base} " + _AT_MOST,
    "preferred": "{arms} is preferred: its picks win {by} of the clicks",
    "neither_preferred": "neither ranking is surely preferred yet",
    "too_few_clicks": "too few people have clicked yet",
    "one_clicks": "one person made {by} of the clicks " + _AT_MOST,
}


WHOLE_FROM = 10_000
"""Larger numbers are never shown in powers of ten: people read a shop's revenue in micros as money."""


def figure(value: float | None, sign: str = "") -> str:
    """A metric for people: four digits; from `WHOLE_FROM` on, all digits; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:{sign},.0f}" if abs(value) >= WHOLE_FROM else f"{value:{sign}.4g}"


class Finding(Struct, frozen=True, kw_only=True):
    """What an experiment shows of ``arms``, beside the ``first``, in ``metric``.

    ``by``: of a better arm the difference, relative to the first arm's where ``relative``; of a preferred ranking its
    share of the clicks; of who decides alone, that person's share. ``reason``: why it was stopped, where anybody said.
    ``detail``: the figures behind it, in English; of arms that are compared, the intervals.
    """

    code: Code
    first: str
    metric: str
    arms: tuple[str, ...] = ()
    by: float | None = None
    relative: bool = True
    reason: str = ""
    detail: str = ""

    @property
    def sentence(self) -> str:
        """The finding in English."""
        by = "" if self.by is None else f"{self.by:.1%}" if self.relative else f"{self.by:.4g}"
        told = {"first": self.first, "metric": self.metric, "reason": self.reason or "no reason given"}
        base = BASES.get(self.metric, "")
        said = SENTENCES[self.code].format(arms=", ".join(self.arms), by=by, base=base, **told)
        return f"{said} ({self.detail})" if self.detail else said


def trial_finding(setting: ExperimentSetting, look: Look) -> Finding:
    """What an experiment shows: that it was stopped, or what ``look`` does."""
    return _stopped(setting, setting.primary) or trial_look(setting, look)


def trial_look(setting: ExperimentSetting, look: Look) -> Finding:
    """What ``look`` shows of an experiment, stopped or not."""
    first, metric = setting.arms[0].arm, setting.primary
    if look.split_p_value < SPLIT_P_MIN:
        return Finding(code="unequal_shares", first=first, metric=metric, detail=_split(setting, look))
    found = look.differences[metric]
    intervals = _intervals(setting, found)
    better = {at: one for at, one in found.items() if one.low > 0}
    if better:
        best = max(better, key=lambda at: better[at].value)
        by, relative = _size(better[best])
        arms = (setting.arms[best].arm,)
        return Finding(code="better", first=first, metric=metric, arms=arms, by=by, relative=relative, detail=intervals)
    worse = tuple(setting.arms[at].arm for at, one in found.items() if one.high < 0)
    if worse:
        code: Code = "first_is_better" if len(worse) == len(setting.arms) - 1 else "worse"
        return Finding(code=code, first=first, metric=metric, arms=worse, detail=intervals)
    if not found and (decided := look.heaviest.get(metric)):
        return one_decides(setting, metric, *max(decided.items(), key=lambda arm: arm[1]))
    if not found:
        return Finding(code="too_little", first=first, metric=metric, detail=_lacking(setting, look))
    return Finding(code="open", first=first, metric=metric, detail=intervals)


def _intervals(setting: ExperimentSetting, found: Mapping[int, Difference]) -> str:
    """How far each arm's primary metric surely is from the first arm's; which arms are not compared."""
    told = [f"{setting.arms[at].arm} {one.low:+.3g} to {one.high:+.3g}" for at, one in sorted(found.items())]
    told += [f"{arm.arm} not compared yet" for at, arm in enumerate(setting.arms) if at and at not in found]
    return f"{setting.primary} less {setting.arms[0].arm}'s: {', '.join(told)}"


def _split(setting: ExperimentSetting, look: Look) -> str:
    """How many users each arm has, and how many were meant for it; a look of before does not know those."""
    told = zip(setting.arms, look.users.tolist(), look.meant, strict=False)
    users = ", ".join(f"{arm.arm} has {users:,} users of {meant:,.0f} meant" for arm, users, meant in told)
    likely = "likely crashes, bots, redirects or refusals in one arm"
    return f"{users}; {likely}" if users else likely


def _lacking(setting: ExperimentSetting, look: Look) -> str:
    """How many users of how many an arm has; empty where that is not what is missing."""
    metric = setting.primary
    if (lack := look.lacks.get(metric)) is None:
        return ""
    having = _HAVING.get(metric, "users who saw an ad")
    who = {"users": "users", "having": having, "doers": _DOERS[metric], "undone": _UNDONE.get(metric, "")}[lack.kind]
    return f"{setting.arms[lack.at].arm} has {lack.have:,} of {lack.need:,} {who}"


def one_decides(setting: ExperimentSetting, metric: str, at: int, share: float) -> Finding:
    """The finding that one person has ``share`` of the denominator of a metric of the arm ``at``."""
    arms = setting.arms
    return Finding(code="one_decides", first=arms[0].arm, metric=metric, arms=(arms[at].arm,), by=share)


def duel_finding(setting: ExperimentSetting, score: Score) -> Finding:
    """What an interleaved experiment shows: that it was stopped, or what ``score`` does."""
    return _stopped(setting, PREFERENCE) or duel_look(setting, score)


def duel_look(setting: ExperimentSetting, score: Score) -> Finding:
    """What ``score`` shows of an interleaved experiment, stopped or not."""
    first, metric = setting.arms[0].arm, PREFERENCE
    if score.heaviest is not None:
        return Finding(code="one_clicks", first=first, metric=metric, by=score.heaviest)
    if (found := score.preference) is None:
        return Finding(code="too_few_clicks", first=first, metric=metric)
    if found.low <= 0 <= found.high:
        return Finding(code="neither_preferred", first=first, metric=metric)
    preferred = setting.arms[int(found.value > 0)].arm
    return Finding(code="preferred", first=first, metric=metric, arms=(preferred,), by=(1 + abs(found.value)) / 2)


def _stopped(setting: ExperimentSetting, metric: str) -> Finding | None:
    if setting.status != "stopped":
        return None
    return Finding(code="stopped", first=setting.arms[0].arm, metric=metric, reason=setting.reason)


def _size(found: Difference) -> tuple[float, bool]:
    """How large a difference is, and whether it is relative to the first arm's value: not where that is 0 (NaN)."""
    relative = found.relative == found.relative
    return (found.relative, True) if relative else (found.value, False)
