"""Campaigns as the campaign-metrics topic tells them: lanes and arms added up, a day settled, and what it returned."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from streams.wire import CampaignMetrics, Figures

_SUMMED = tuple(field.name for field in msgspec.structs.fields(Figures))
_NOTHING = Figures()


class Campaign(Struct, frozen=True, kw_only=True):
    """A campaign, or one arm of it. ``today`` is of ``day``, the newest that any lane has told of.

    ``billed_micros``, ``unbilled_micros``: of what it spent today, up to its budget and beyond; what was billed before
    the budget was lowered stays so, and may be more than it is now. An arm has no budget of its own, and null there.
    ``roas``: value of purchases by money spent, since ever; ``roi``: what is left of it beyond the money, by the money;
    by last touch, and by position. Null where nothing was spent.
    """

    campaign_id: str
    arm: str | None
    day: int
    today: Figures
    total: Figures
    budget_micros: int | None
    billed_micros: int | None
    unbilled_micros: int | None
    level: float
    roas: float | None
    roi: float | None
    spread_roas: float | None


def campaigns(told: Iterable[CampaignMetrics], *, by_arm: bool = False) -> list[Campaign]:
    """Those of ``told``, of each lane, campaign and arm the last, that spent most first."""
    cells = {(each.lane, each.campaign_id, each.arm): each for each in told}
    day = max((each.day for each in cells.values()), default=0)
    groups: dict[tuple[str, str | None], list[CampaignMetrics]] = {}
    for each in cells.values():
        groups.setdefault((each.campaign_id, each.arm if by_arm else None), []).append(each)
    found = [_campaign(name, arm, day, of) for (name, arm), of in groups.items()]
    return sorted(found, key=lambda one: (-one.total.spent_micros, one.campaign_id, one.arm or ""))


def _campaign(name: str, arm: str | None, day: int, of: list[CampaignMetrics]) -> Campaign:
    today = _sum(each.today if each.day == day else _NOTHING for each in of)
    total, newest = _sum(each.total for each in of), max(of, key=lambda each: each.time_ms)
    budget, spent = newest.budget_micros, today.spent_micros
    owed = max((each.billed_micros for each in of if each.day == day), default=0)
    billed = spent if budget is None else min(spent, max(budget, owed))
    whole = arm is None
    return Campaign(
        campaign_id=name,
        arm=arm,
        day=day,
        today=today,
        total=total,
        budget_micros=budget if whole else None,
        billed_micros=billed if whole else None,
        unbilled_micros=spent - billed if whole else None,
        level=newest.level,
        roas=_ratio(total.value_micros, total.spent_micros),
        roi=_ratio(total.value_micros - total.spent_micros, total.spent_micros),
        spread_roas=_ratio(total.spread_value_micros, total.spent_micros),
    )


def _sum(figures: Iterable[Figures]) -> Figures:
    each = [msgspec.structs.astuple(one) for one in figures]
    return Figures(**dict(zip(_SUMMED, map(sum, zip(*each, strict=True)), strict=True)))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
