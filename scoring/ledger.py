"""What campaigns owe, lane by lane: exact sums that survive a lane's move, settled against the day's budget.

A lane adds what its own events charge, once each since its events are; the shop settles the sum over lanes, so that
no campaign is billed more than its budget whatever the lanes knew of each other. What was delivered beyond is
counted, and is not billed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.value import BidType

Ints = npt.NDArray[np.int64]

PARTS = 1_000
"""A charge is an integer of thousandths of a micro: an impression at a price per thousand is one such number."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Of M campaigns on one day, in micros: what is billed, and what was delivered beyond the budget."""

    billed_micros: Ints
    unbilled_micros: Ints


def charges(
    bid_type: npt.NDArray[np.uint8],
    price_micros: Ints,
    clicked: npt.NDArray[np.bool_],
    purchased: npt.NDArray[np.bool_],
    viewed_ms: Ints,
) -> Ints:
    """What each impression's outcome charges, ``[E]`` thousandths of a micro, by what its bid pays for."""
    owed: Ints = np.select(
        [bid_type == BidType.CPM, bid_type == BidType.CPC, bid_type == BidType.CPA],
        [price_micros, price_micros * PARTS * clicked, price_micros * PARTS * purchased],
        price_micros * viewed_ms,
    )
    return owed


def settle(charged: Ints, budget_micros: Ints) -> Settled:
    """Settle a day: ``charged [lanes, M]`` thousandths of a micro against ``budget_micros [M]`` (0: no limit)."""
    total = charged.sum(axis=0) // PARTS
    billed = np.where(budget_micros > 0, np.minimum(total, budget_micros), total)
    return Settled(billed, total - billed)
