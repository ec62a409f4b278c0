"""Actions joined with the impressions that they answer, people and ads as places in arrays."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints, Singles
from scoring.catalogue import Catalogue
from scoring.events import Kind
from scoring.features import FEATURE_DIM, top_category
from scoring.ids import MISSING
from scoring.pending import keys_of
from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS
from streams.behaviour.gathered import Gathered, Table
from streams.feeds.catalogue import entry_of

UNKNOWN = "(unknown)"
"""Category, campaign and advertiser of an ad that was shown and is in no catalogue."""
_WIDTHS_MS = (MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 28 * DAY_MS, 364 * DAY_MS)
PERIODS_MAX = 14
"""Periods of a report: as many as a table of cohorts can show."""


@dataclass(frozen=True, slots=True)
class Periods:
    """Equal periods from ``start_ms``, a multiple of ``width_ms`` in UTC."""

    start_ms: int
    width_ms: int
    count: int

    @classmethod
    def over(cls, from_ms: int, to_ms: int) -> "Periods":
        """Periods of the shortest usual width of which at most `PERIODS_MAX` cover ``[from_ms, to_ms)``."""
        for width_ms in _WIDTHS_MS:
            start_ms = from_ms - from_ms % width_ms
            if (count := -(-(to_ms - start_ms) // width_ms)) <= PERIODS_MAX:
                break
        return cls(start_ms, width_ms, count)

    def of(self, time_ms: Ints) -> Ints:
        """The period of each moment."""
        return (time_ms - self.start_ms) // self.width_ms

    @property
    def starts_ms(self) -> list[int]:
        """When each begins."""
        return [self.start_ms + at * self.width_ms for at in range(self.count)]


@dataclass(frozen=True, slots=True)
class Names:
    """Ads grouped by one of their fields: ``of_ad [A + 1]`` is each ad's place in ``names``.

    The last entry of ``of_ad`` is for unknown ads, so that the index `MISSING` finds it.
    """

    names: list[str]
    of_ad: Ints

    @classmethod
    def of(cls, words: list[str]) -> "Names":
        names, places = np.unique(np.array([*(word or UNKNOWN for word in words), UNKNOWN]), return_inverse=True)
        return cls(names.tolist(), places.astype(np.int64))


@dataclass(frozen=True)
class Behaviour:
    """I impressions and A actions of U people, joined. ``*_ad`` are slots of ``shop``, `MISSING` where unknown.

    ``answers [A]``: the impression that an action answers; `MISSING` where it names none, or one that is not here.
    ``stage [I]``: the furthest `Kind` that came of an impression.
    """

    gathered: Gathered
    shop: Catalogue
    periods: Periods
    users: int
    impression_user: Ints
    action_user: Ints
    impression_ad: Ints
    action_ad: Ints
    answers: Ints
    stage: npt.NDArray[np.uint8]
    categories: Names
    campaigns: Names
    advertisers: Names

    @property
    def impressions(self) -> Table:
        """``[I]`` of `gathered.HAPPENED`."""
        return self.gathered.impressions

    @property
    def actions(self) -> Table:
        """``[A]`` of `gathered.HAPPENED`."""
        return self.gathered.actions

    @property
    def clicked(self) -> Bools:
        """Whether an impression was clicked, or led to more, ``[I]``."""
        return self.stage >= Kind.CLICKED

    def of_impressions(self, figures: Ints) -> Ints:
        """Sums, ``[I]``, of the ``figures [A]`` of the actions that answer an impression."""
        out = np.zeros(len(self.impressions), dtype=np.int64)
        told = self.answers != MISSING
        np.add.at(out, self.answers[told], figures[told])
        return out

    @property
    def bought_micros(self) -> Ints:
        """Value of purchases in answer to each impression, ``[I]``."""
        return self.of_impressions(self.actions["value_micros"])

    @property
    def price_micros(self) -> Ints:
        """Price of one event of the kind that an impression's ad pays for, ``[I]``; -1 where no event tells it."""
        price: Ints = self.impressions["price_micros"].copy()
        told = self.answers != MISSING
        np.maximum.at(price, self.answers[told], self.actions["price_micros"][told])
        return price

    def features(self) -> Singles:
        """Feature vectors of the ads, ``[A + 1, FEATURE_DIM]``; zeros for unknown ads, the last."""
        return np.concatenate([self.shop.features, np.zeros((1, FEATURE_DIM), dtype=np.float32)])


def by_rank(group: Ints, shown: Ints, told: int) -> tuple[list[int], list[Ints]]:
    """The groups by ``shown [G]``, most first, without those at 0; and the places in ``group [N]`` of each of the first
    ``told`` groups, in order, then of all other groups together. One pass over all; ``told``: 255 at most.
    """
    order = [at for at in np.argsort(-shown, kind="stable").tolist() if shown[at]]
    told = min(told, len(order))
    rank = np.full(len(shown), told, dtype=np.uint8)  # for bytes numpy's stable sort is a radix sort
    rank[order[:told]] = np.arange(told)
    ranks = rank[group]
    ends = np.cumsum(np.bincount(ranks, minlength=told + 1))
    return order, np.split(np.argsort(ranks, kind="stable"), ends[:-1])


def join(gathered: Gathered) -> Behaviour:
    """Everything joined. Raises `ReportError` where there are no events."""
    gathered, periods = _in_periods(gathered)
    impressions, actions, ads = gathered.impressions, gathered.actions, gathered.ads
    users, place = np.unique(np.concatenate([impressions["user"], actions["user"]]), return_inverse=True)
    answers = _answers(impressions, actions)
    stage = np.full(len(impressions), Kind.SHOWN, dtype=np.uint8)
    told = answers != MISSING
    np.maximum.at(stage, answers[told], actions["kind"][told])
    shop = Catalogue(ads_max=len(ads))
    shop.upsert([entry_of(ad) for ad in ads])
    return Behaviour(
        gathered=gathered,
        shop=shop,
        periods=periods,
        users=len(users),
        impression_user=place[: len(impressions)].astype(np.int64),
        action_user=place[len(impressions) :].astype(np.int64),
        impression_ad=shop.slots_of(impressions["ad"]),
        action_ad=shop.slots_of(actions["ad"]),
        answers=answers,
        stage=stage,
        categories=Names.of([top_category(ad.category) for ad in ads]),
        campaigns=Names.of([ad.campaign_id for ad in ads]),
        advertisers=Names.of([ad.advertiser_id for ad in ads]),
    )


def _in_periods(gathered: Gathered) -> tuple[Gathered, Periods]:
    """What happened in the last `PERIODS_MAX` periods, and these: one clock at 1970 would stretch all of them."""
    periods = Periods.over(*gathered.span_ms)
    if (more := periods.count - PERIODS_MAX) <= 0:
        return gathered, periods
    from_ms = periods.start_ms + more * periods.width_ms
    impressions, actions = (each[each["time_ms"] >= from_ms] for each in (gathered.impressions, gathered.actions))
    older = len(gathered.impressions) + len(gathered.actions) - len(impressions) - len(actions)
    kept = replace(gathered, impressions=impressions, actions=actions, misdated=gathered.misdated + older)
    return kept, Periods.over(*kept.span_ms)


def _answers(impressions: Table, actions: Table) -> Ints:
    """Each action's impression, found as the engine finds it: by user, ad and the second of the impression.

    An action that names no impression answers none, even if the ad was shown in that very second.
    """
    keys = keys_of(impressions["user"], impressions["ad"], impressions["shown_ms"])
    found = places(keys, keys_of(actions["user"], actions["ad"], actions["shown_ms"]))
    return np.where(actions["answers"], found, MISSING)


def places(known: Ids, wanted: Ids) -> Ints:
    """The first place of each of ``wanted`` in ``known``; `MISSING` where it is not there."""
    if not len(known):
        return np.full(len(wanted), MISSING, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    found = order[at]
    return np.where(known[found] == wanted, found, MISSING)
