"""Campaigns from the campaign-metrics topic: summed over lanes and arms, with two days' bills and return on spend."""

from collections.abc import Iterable
from operator import itemgetter

import msgspec
from msgspec import UNSET, Struct

from streams.wire import CampaignMetrics, Figures

_SUMMED = tuple(field.name for field in msgspec.structs.fields(Figures))
_NOTHING = Figures()


class Campaign(Struct, frozen=True, kw_only=True):
    """A campaign, or one arm of it. ``today`` holds the figures of ``day``, the newest day that any lane reports.

    ``billed_micros``: today's spend up to the budget; ``unbilled_micros``: the rest. What was billed before the budget
    was lowered stays billed, so it may exceed today's budget. ``yesterday`` and its bill are of the day before ``day``,
    final once all lanes have passed its midnight. An arm has no budget: the three fields of each day are null.
    ``roas``: value of purchases ÷ spend, over all time; ``roi``: (value − spend) ÷ spend. Both credit the last touch;
    ``spread_roas`` credits by position. Null where nothing was spent.
    """

    campaign_id: str
    arm: str | None
    day: int
    today: Figures
    yesterday: Figures
    total: Figures
    budget_micros: int | None
    billed_micros: int | None
    unbilled_micros: int | None
    yesterday_budget_micros: int | None
    yesterday_billed_micros: int | None
    yesterday_unbilled_micros: int | None
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
    yesterday = _sum(_yesterday(each, day) for each in of)
    total, newest = _sum(each.total for each in of), max(of, key=lambda each: each.time_ms)
    budget, former = newest.budget_micros, _yesterdays_budget(of, day, newest.budget_micros)
    billed, former_billed = _billed(of, day, today, budget), _billed(of, day - 1, yesterday, former)
    whole = arm is None
    return Campaign(
        campaign_id=name,
        arm=arm,
        day=day,
        today=today,
        yesterday=yesterday,
        total=total,
        budget_micros=budget if whole else None,
        billed_micros=billed if whole else None,
        unbilled_micros=today.spent_micros - billed if whole else None,
        yesterday_budget_micros=former if whole else None,
        yesterday_billed_micros=former_billed if whole else None,
        yesterday_unbilled_micros=yesterday.spent_micros - former_billed if whole else None,
        level=newest.level,
        roas=_ratio(total.value_micros, total.spent_micros),
        roi=_ratio(total.value_micros - total.spent_micros, total.spent_micros),
        spread_roas=_ratio(total.spread_value_micros, total.spent_micros),
    )


def _yesterday(cell: CampaignMetrics, day: int) -> Figures:
    if cell.day == day - 1:  # of a lane that is still in it, or had no event since
        return cell.today
    return cell.before if cell.before is not None and cell.before_day == day - 1 else _NOTHING


def _yesterdays_budget(of: list[CampaignMetrics], day: int, today: int | None) -> int | None:
    """The budget of the day before ``day``, as the newest cell tells that knows it; else ``today``'s, as workers do."""
    known: list[tuple[int, int | None]] = [(-1, today)]
    for each in of:
        if each.day == day - 1:
            known.append((each.time_ms, each.budget_micros))
        elif each.day == day and each.yesterday_budget_micros is not UNSET:
            known.append((each.time_ms, each.yesterday_budget_micros))
    return max(known, key=itemgetter(0))[1]


def _billed(of: list[CampaignMetrics], day: int, figures: Figures, budget: int | None) -> int:
    """What is billed of the ``figures`` of ``day``: up to the ``budget``, or what any cell tells as billed of it."""
    if budget is None:
        return figures.spent_micros
    told = [each.billed_micros for each in of if each.day == day]
    told += [each.before_billed_micros for each in of if each.before_day == day]
    return min(figures.spent_micros, max(budget, *told, 0))


def _sum(figures: Iterable[Figures]) -> Figures:
    each = [msgspec.structs.astuple(msgspec.structs.replace(one, sold=sold_of(one))) for one in figures]
    return Figures(**dict(zip(_SUMMED, map(sum, zip(*each, strict=True)), strict=True)))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
