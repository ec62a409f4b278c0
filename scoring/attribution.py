"""To which campaigns a purchase is owed: the clicks that came before it, within each campaign's window.

Touches are the person's impressions that the ring holds and that a click named, of ads by the bought item's
advertiser. Last touch gives all to the newest; position-weighted gives 40 % to the first, 40 % to the last and the rest
to those between (one of two has half). Credits of a purchase sum to it exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
ENDS = 0.4
"""Of a purchase, the share of the first touch and of the last."""
MILLI = 1_000
"""Credits are thousandths of a purchase."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How long a click may lie before the purchase that it is owed, by campaign (64-bit id), and for all others."""

    usual_ms: int = 7 * DAY_MS
    campaigns: Mapping[int, int] = field(default_factory=dict)

    def of(self, campaigns: Ids) -> Ints:
        """Windows of campaigns, any shape."""
        out = np.full(campaigns.shape, self.usual_ms, dtype=np.int64)
        for campaign, window_ms in self.campaigns.items():
            out[campaigns == np.uint64(campaign)] = window_ms
        return out


@dataclass(frozen=True, slots=True)
class Credits:
    """N credits: the slot of the ad whose click earned it, and the arms that the purchase names.

    ``last``, ``spread``: thousandths of a purchase by last touch and position-weighted; ``*_micros``: of its value.
    """

    slot: Ints
    arms: Ids
    last: Ints
    last_micros: Ints
    spread: Ints
    spread_micros: Ints


def credit(rows: Rows, purchases: Events, catalogue: Catalogue, windows: Windows) -> Credits:
    """Credits of ``purchases [P]``, of ``rows`` to which they have been applied already."""
    row, bought = purchases["row"], catalogue.slots_of(purchases["ad"])
    slot = catalogue.slots_of(rows["ring_ad"][row])  # [P, H], oldest first
    kind = rows["ring_kind"][row]
    clicked = (kind >= SHOWN_BIT) & (answered(kind) >= Kind.CLICKED)
    known = (slot != MISSING) & (bought != MISSING)[:, None]
    ours = catalogue.advertiser.take(slot) == catalogue.advertiser.take(bought)[:, None]
    age_ms = purchases["time_ms"][:, None] - 1_000 * rows["ring_s"][row].astype(np.int64)
    within = (age_ms >= 0) & (age_ms <= windows.of(catalogue.campaign.take(slot)))
    touch = clicked & known & ours & within
    weight = _weights(touch)
    last = np.zeros(touch.shape)
    led = np.flatnonzero(touch.any(axis=1))
    last[led, touch.shape[1] - 1 - touch[led, ::-1].argmax(axis=1)] = 1.0
    value = purchases["value_micros"]
    whole = np.full(len(value), MILLI, dtype=np.int64)
    at = np.nonzero(touch)
    parts = (_shared(each, of)[at] for each, of in ((last, whole), (last, value), (weight, whole), (weight, value)))
    return Credits(slot[at], purchases["arms"][at[0]], *parts)


def _weights(touch: npt.NDArray[np.bool_]) -> Floats:
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
