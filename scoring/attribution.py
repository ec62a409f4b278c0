"""To which campaigns a purchase is owed: the clicks that came before it, within each campaign's window.

Touches are the person's impressions that the ring holds and that a click named, of ads by the bought item's
advertiser. Last touch gives all to the newest. Beside it stands what is spread over all of them: by position, 40 % to
the first, 40 % to the last and the rest to those between (one of two has half), or by time, where a touch one half-life
earlier counts half as much. Credits of a purchase sum to it exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.events import Events, Kind
from scoring.ids import MISSING
from scoring.rows import SHOWN_BIT, Rows, answered

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

DAY_MS = 86_400_000
Spread = Literal["position", "time"]
ENDS = 0.4
"""Of a purchase, the share of the first touch and of the last."""
MILLI = 1_000
"""Credits are thousandths of a purchase."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """How long a click may lie before the purchase that it is owed, by campaign (64-bit id), and for all others.

    ``spread``: how purchases are spread over touches, with the exceptions of those campaigns whose ads were bought that
    are in ``spreads``; ``half_life_ms``: of what is spread by time.
    """

    usual_ms: int = 7 * DAY_MS
    campaigns: Mapping[int, int] = field(default_factory=dict)
    spread: Spread = "position"
    spreads: Mapping[int, Spread] = field(default_factory=dict)
    half_life_ms: int = 2 * DAY_MS

    def by_time(self, campaigns: Ids) -> npt.NDArray[np.bool_]:
        """Whether purchases of ads of ``campaigns [P]`` are spread by time."""
        out = np.full(campaigns.shape, self.spread == "time")
        for campaign, spread in self.spreads.items():
            out[campaigns == np.uint64(campaign)] = spread == "time"
        return out

    def of(self, campaigns: Ids) -> Ints:
        """Windows of campaigns, any shape."""
        out = np.full(campaigns.shape, self.usual_ms, dtype=np.int64)
        for campaign, window_ms in self.campaigns.items():
            out[campaigns == np.uint64(campaign)] = window_ms
        return out


@dataclass(frozen=True, slots=True)
class Credits:
    """N credits: the slot of the ad whose click earned it, and the arms that the purchase names.

    ``last``, ``spread``: thousandths of a purchase by last touch, and spread over all; ``*_micros``: of its value.
    """

    slot: Ints
    arms: Ids
    last: Ints
    last_micros: Ints
    spread: Ints
    spread_micros: Ints


def credit(rows: Rows, purchases: Events, catalogue: Catalogue, owed: Attribution) -> Credits:
    """Credits of ``purchases [P]``, of ``rows`` to which they have been applied already."""
    row, bought = purchases["row"], catalogue.slots_of(purchases["ad"])
    slot = catalogue.slots_of(rows["ring_ad"][row])  # [P, H], oldest first
    kind = rows["ring_kind"][row]
    clicked = (kind >= SHOWN_BIT) & (answered(kind) >= Kind.CLICKED)
    known = (slot != MISSING) & (bought != MISSING)[:, None]
    ours = catalogue.advertiser.take(slot) == catalogue.advertiser.take(bought)[:, None]
    age_ms = purchases["time_ms"][:, None] - 1_000 * rows["ring_s"][row].astype(np.int64)
    within = (age_ms >= 0) & (age_ms <= owed.of(catalogue.campaign.take(slot)))
    touch = clicked & known & ours & within
    weight = _by_position(touch)
    if len(by_time := np.flatnonzero(owed.by_time(catalogue.campaign.take(bought)))):
        weight[by_time] = _by_time(touch[by_time], age_ms[by_time], owed.half_life_ms)
    last = np.zeros(touch.shape)
    led = np.flatnonzero(touch.any(axis=1))
    last[led, touch.shape[1] - 1 - touch[led, ::-1].argmax(axis=1)] = 1.0
    value = purchases["value_micros"]
    whole = np.full(len(value), MILLI, dtype=np.int64)
    at = np.nonzero(touch)
    parts = (_shared(each, of)[at] for each, of in ((last, whole), (last, value), (weight, whole), (weight, value)))
    return Credits(slot[at], purchases["arms"][at[0]], *parts)


def _by_time(touch: npt.NDArray[np.bool_], age_ms: Ints, half_life_ms: int) -> Floats:
    """Weights ``[P, H]`` that halve with every half-life of age, against that of the newest touch."""
    newest = np.where(touch, age_ms, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    weight = np.where(touch, np.exp2((newest - age_ms) / half_life_ms, where=touch, out=np.zeros(touch.shape)), 0.0)
    total = weight.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(weight, total, out=weight, where=total > 0)
    return shares


def _by_position(touch: npt.NDArray[np.bool_]) -> Floats:
    """Position weights ``[P, H]`` of the touches ``[P, H]`` of each purchase; they sum to 1 where there are any."""
    count = touch.sum(axis=1)
    nth = np.cumsum(touch, axis=1)
    ends = np.select([count == 1, count == 2], [1.0, 0.5], ENDS)[:, None]
    between = ((1 - 2 * ENDS) / np.maximum(count - 2, 1))[:, None]
    weight: Floats = np.where((nth == 1) | (nth == count[:, None]), ends, between) * touch
    return weight


def _shared(weight: Floats, total: Ints) -> Ints:
    """``total [P]`` divided by ``weight [P, H]`` into whole numbers that sum to it; the last one has what is over."""
    upto = np.cumsum(weight, axis=1)
    whole = np.where(upto >= 1 - 1e-9, total[:, None], np.floor(upto * total[:, None]).astype(np.int64))
    whole[~weight.any(axis=1)] = 0
    return np.diff(whole, axis=1, prepend=0)
