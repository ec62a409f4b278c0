"""Campaigns from the campaign-metrics topic: summed over lanes and arms, with the day's bill and return on spend."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Struct

from streams.wire import CampaignMetrics, Figures

_SUMMED = tuple(field.name for field in msgspec.structs.fields(Figures))
_NOTHING = Figures()


class Campaign(Struct, frozen=True, kw_only=True):
    """A campaign, or one arm of it. ``today`` holds the figures of ``day``, the newest day that any lane reports.

    ``billed_micros``: today's spend up to the budget; ``unbilled_micros``: the rest. What was billed before the budget
    was lowered stays billed, so it may exceed today's budget. An arm has no budget: all three fields are null.
    ``roas``: value of purchases ÷ spend, over all time; ``roi``: (value − spend) ÷ spend. Both credit the last touch;
    ``spread_roas`` credits by position. Null where nothing was spent.
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
    """The campaigns in ``told``, highest spend first; of each lane, campaign and arm the last record counts."""
    cells = {(each.lane, each.campaign_id, each.arm): each for each in told}
    day = max((each.day for each in cells.values()), default=0)
    groups: dict[tuple[str, str | None], list[CampaignMetrics]] = {}
    for each in cells.values():
        groups.setdefault((each.campaign_id, each.arm if by_arm else None), []).append(each)
    found = [_campaign(name, arm, day, of) for (name, arm), of in groups.items()]
    return sorted(found, key=lambda one: (-one.total.spent_micros, one.campaign_id, one.arm or ""))


def sold_of(figures: Figures) -> int:
    """Purchases that were charged. A version that did not count them: as many as credited, at most one a click."""
    return min(int(figures.purchases), figures.clicks) if figures.sold is UNSET else figures.sold


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
    each = [msgspec.structs.astuple(msgspec.structs.replace(one, sold=sold_of(one))) for one in figures]
    return Figures(**dict(zip(_SUMMED, map(sum, zip(*each, strict=True)), strict=True)))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
