"""What an impression is worth to whoever pays for it: a bid of any type, as expected micros per impression.

    value = bid × chance of the event that is paid for + price of attention × expected seconds of it

| bid type | paid for | chance per impression |
|---|---|---|
| cpm | a thousand impressions | 1/1000 |
| cpc | a click | pCTR |
| cpa | a purchase | pCTR × pCVR |
| attention | a second of viewing | expected viewed seconds |

What ranks is what is owed: the bid's part at the auction's price (`scoring.auction`), and beside it the price of
attention, as the ad names it, for each second viewed (`scoring.ledger`).
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ints


class BidType(IntEnum):
    """What a bid pays for."""

    CPC = 0
    CPM = 1
    CPA = 2
    ATTENTION = 3


BID_TYPES = {"cpc": BidType.CPC, "cpm": BidType.CPM, "cpa": BidType.CPA, "attention": BidType.ATTENTION}
"""By their names on the wire."""


def paid_chance(bid_type: npt.NDArray[np.uint8], pctr: Floats, pcvr: Floats, seconds: Floats) -> Floats:
    """Expected number of paid events of one impression, any shape; all arguments of that shape."""
    chance: Floats = np.choose(bid_type, [pctr, np.full_like(pctr, 1e-3), pctr * pcvr, seconds])
    return chance


def value_of(bids_micros: Ints, chance: Floats, attention_micros: Ints, seconds: Floats) -> Floats:
    """Expected micros of one impression, any shape: the bid's part and the price of attention's."""
    worth: Floats = bids_micros * chance + attention_micros * seconds
    return worth


def of_clicks(bid_type: npt.NDArray[np.uint8], paid: Floats, value: Floats) -> Floats:
    """Share of a ``value`` that its click rate is a factor of, any shape; ``paid``: the bid's part of the value."""
    clicked = (bid_type == BidType.CPC) | (bid_type == BidType.CPA)
    share: Floats = np.where(clicked, paid / np.maximum(value, np.finfo(float).tiny), 0.0)
    return share
