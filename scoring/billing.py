"""What a batch of events makes campaigns owe: each impression's charge once, whatever comes twice or in which order.

The ring says what is known of an impression: whether it was seen, and the most that answered it. A batch charges what
it *changes* there: the impression itself when it is first seen, a click or a purchase when impression and answer are
first both known, and the seconds of every view that comes after its impression. Of one that overtakes it the ring keeps
no seconds, so that it would be chance whether it is charged: it is not, even where both come in one batch. Since a ring
only gains, no event is charged again by another one of the same impression; what is older than a full ring holds is
never charged. What names no impression answers none, though the ad was shown in that very second, and charges nothing.
Prices are the placement's own, by their seal; the price of attention is what the ad says now, asked for where the
placement's is told, too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.claims import ring_key
from scoring.events import Events, Kind, Outcome, Source
from scoring.ids import MISSING, mix64
from scoring.ledger import charges
from scoring.rows import SHOWN_BIT, Rows, answered
from scoring.seal import Seal

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

VIEW_MS_MAX = 60_000
"""Of one view, what is charged at most: nobody pays for a page left open."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the rings knew of each event's impression before the batch, ``[E]``.

    ``kind``: as in ``ring_kind``, 0 where it was not there. ``gone``: the ring is full and holds newer things alone.
    """

    kind: npt.NDArray[np.uint8]
    gone: Bools


def look(rows: Rows, events: Events) -> Before:
    """Look up the impressions of ``events [E]`` in ``rows``, before they are applied."""
    row, ad = events["row"], events["ad"]
    seconds = (events["shown_ms"] // 1000).astype(np.uint32)
    same = (rows["ring_ad"][row] == ad[:, None]) & (rows["ring_s"][row] == seconds[:, None])
    place = same.argmax(axis=1)
    found = same[np.arange(len(events)), place]
    oldest_s, oldest_ad = rows["ring_s"][row, 0], rows["ring_ad"][row, 0]
    gone = ~found & (oldest_ad != 0) & (ring_key(seconds, ad) < ring_key(oldest_s, oldest_ad))
    return Before(np.where(found, rows["ring_kind"][row, place], 0).astype(np.uint8), gone)


@dataclass(frozen=True, slots=True)
class Bills:
    """What N impressions gained in a batch. ``slot``: of the ad; ``charged``: thousandths of a micro.

    ``unpriced``: it would have been charged, and no event of it told a price of its placement. ``misquoted``: events
    of the batch that told a price which is not their placement's.
    """

    slot: Ints
    arms: Ids
    shown: Bools
    clicked: Bools
    viewed_ms: Ints
    charged: Ints
    unpriced: Bools
    misquoted: int


def bill(before: Before, events: Events, outcome: npt.NDArray[np.uint8], catalogue: Catalogue, seal: Seal) -> Bills:
    """Bill ``events [E]``, of which those with `Outcome.APPLIED` count; ``before [E]`` is what `look` found."""
    slot = catalogue.slots_of(events["ad"])
    told = events["answers"] | (events["source"] == Source.IMPRESSION)
    counts = np.flatnonzero((outcome == Outcome.APPLIED) & told & ~before.gone & (slot != MISSING))
    events, slot, known = events[counts], slot[counts], before.kind[counts]
    priced, misquoted = _priced(events, slot, catalogue, seal)
    second = (events["shown_ms"] // 1000).astype(np.uint64)
    keys = mix64(mix64(events["row"].astype(np.uint64)) ^ events["ad"]) ^ mix64(second)
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    size = len(first)
    was_shown, was = known[first] >= SHOWN_BIT, answered(known[first])
    now, viewed_ms = was.copy(), np.zeros(size, dtype=np.int64)
    np.maximum.at(now, of, events["kind"])
    place, shows = np.arange(len(events)), np.flatnonzero(events["source"] == Source.IMPRESSION)
    since = np.where(was_shown, -1, len(events))  # the place of the impression itself
    np.minimum.at(since, of[shows], shows)
    is_shown, after = since < len(events), place > since[of]
    np.add.at(viewed_ms, of[after], np.minimum(events["viewed_ms"][after], VIEW_MS_MAX))
    price, arms = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.uint64)
    np.maximum.at(price, of[priced], events["price_micros"][priced])
    np.maximum.at(arms, of[priced], events["arms"][priced])

    def new(kind: Kind) -> Bools:
        reached: Bools = is_shown & (now >= kind) & ~(was_shown & (was >= kind))
        return reached

    shown, clicked = is_shown & ~was_shown, new(Kind.CLICKED)
    slot = slot[first]
    # What a price of 1 would charge, where none is known, tells whether one was wanted.
    unknown = price < 0
    price, attention = np.where(unknown, 1, price), catalogue.attention_micros[slot]
    owed = charges(catalogue.bid_type[slot], price, shown, clicked, new(Kind.PURCHASED), viewed_ms, attention)
    return Bills(slot, arms, shown, clicked, viewed_ms, np.where(unknown, 0, owed), unknown & (owed > 0), misquoted)


def _priced(events: Events, slot: Ints, catalogue: Catalogue, seal: Seal) -> tuple[Bools, int]:
    """Which events tell a price that their placement asked, and how many tell another."""
    sealed = np.flatnonzero(events["seal"])
    told = events[sealed]
    tags = seal.tags(told["placement"], told["ad"], told["price_micros"], catalogue.bid_type[slot[sealed]])
    right = tags == told["seal"]
    priced = np.zeros(len(events), dtype=np.bool_)
    priced[sealed[right]] = True
    return priced, int((~right).sum())
