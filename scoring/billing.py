"""What each event makes a campaign owe: what it completes of its impression, once, whatever comes twice or late.

An impression is complete when it has come, its click when impression and click have both come, its purchase likewise.
Each is charged to the event that completes it, at the price that this event states and under its arm. The seconds of
every view that comes after its impression are charged to the view, of each view at most those that have passed between
the two by their own times: a view is dated when it ends, so a late one loses nothing. The ring keeps no seconds, so
that views of one impression do not overlap is not checked. The ring says what was known of an impression before
a batch: whether it had come, and the strongest answer to it. So a charge depends on the order of the lane's events, not
on where a batch ends; and since a ring only gains, no other event of the same impression charges it again. A view that
overtakes its impression charges nothing, even in the same batch, since the ring keeps no seconds. What is older than a
full ring at the beginning of a batch is never charged. An event that names no impression answers none, even if the ad
was shown in that very second, and charges nothing. Prices are those of a placement of the event's user, proven by their
seal. The price of attention is what the ad says now; it is charged only beside a proven price.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.events import Events, Kind, Outcome, Source, only
from scoring.ids import MISSING, mix64
from scoring.ledger import charges
from scoring.rows import SHOWN_BIT, Rows, answered, held, ring_key
from scoring.seal import Seal

VIEW_MS_MAX = 60_000
"""Most that is charged of one view: nobody pays for a page left open."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the rings knew of each event's impression before the batch, ``[E]``.

    ``kind``: as in ``ring_kind``, 0 where it was not there. ``gone``: the ring is full of newer entries alone.
    """

    kind: npt.NDArray[np.uint8]
    gone: Bools


def look(rows: Rows, events: Events) -> Before:
    """Look up the impressions of ``events [E]`` in ``rows``, before they are applied."""
    row, ad = events["row"], events["ad"]
    seconds = (events["shown_ms"] // 1000).astype(np.uint32)
    same = held(rows, row, ad, seconds)
    place = same.argmax(axis=1)
    found = same[np.arange(len(events)), place]
    # In a ring that is not full the first place is empty: no key is below its key.
    gone = ring_key(seconds, ad) < ring_key(rows["ring_s"][row, 0], rows["ring_ad"][row, 0])
    return Before(np.where(found, rows["ring_kind"][row, place], 0).astype(np.uint8), gone)


@dataclass(frozen=True, slots=True)
class Bills:
    """What each of N events completes. ``slot``: of the ad; ``charged``: thousandths of a micro.

    ``place``: the event's in the batch. ``unpriced``: it would have been charged, but proves no price.
    ``misquoted``: how many stated a price that no placement of their user has.
    """

    place: Ints
    slot: Ints
    arms: Ids
    shown: Bools
    clicked: Bools
    purchased: Bools
    viewed_ms: Ints
    charged: Ints
    unpriced: Bools
    misquoted: int


def bill(before: Before, events: Events, outcome: npt.NDArray[np.uint8], catalogue: Catalogue, seal: Seal) -> Bills:
    """Bill ``events [E]``, of which those with `Outcome.APPLIED` count; ``before [E]`` is what `look` found."""
    slot = catalogue.slots_of(events["ad"])
    told = events["answers"] | (events["source"] == Source.IMPRESSION)
    counts = (outcome == Outcome.APPLIED) & told & ~before.gone & (slot != MISSING)
    events, slot, known = only(events, counts), slot[counts], before.kind[counts]
    priced, misquoted = proven(events, slot, catalogue, seal)
    second = (events["shown_ms"] // 1000).astype(np.uint64)
    keys = mix64(mix64(events["row"].astype(np.uint64)) ^ events["ad"]) ^ mix64(second)
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    was = answered(known[first])
    shown_at = _first(of, events["source"] == Source.IMPRESSION, known[first] >= SHOWN_BIT)

    def completed(at: Ints) -> Bools:
        """Which events are the last of what an impression and something else at ``at`` need."""
        done, out = np.maximum(shown_at, at), np.zeros(len(events), dtype=np.bool_)
        out[done[(done > _BEFORE) & (done < len(events))]] = True
        return out

    shown = completed(shown_at)
    clicked, purchased = (
        completed(_first(of, events["kind"] >= kind, was >= kind)) for kind in (Kind.CLICKED, Kind.PURCHASED)
    )
    after = np.arange(len(events)) > shown_at[of]
    passed_ms = np.clip(events["time_ms"] - events["shown_ms"], 0, VIEW_MS_MAX)
    viewed_ms = np.where(after, np.minimum(events["viewed_ms"], passed_ms), 0)
    # Where no price is known, a price of 1 shows whether one was needed.
    price = np.where(priced, events["price_micros"], 1)
    attention = catalogue.attention_micros[slot]
    did = shown, clicked, purchased
    owed = charges(catalogue.bid_type[slot], price, *did, viewed_ms, attention)
    charged, unpriced = np.where(priced, owed, 0), ~priced & (owed > 0)
    arms = np.where(priced, events["arms"], 0)  # each arm gets a cell: only a sealed price can name one
    return Bills(np.flatnonzero(counts), slot, arms, *did, viewed_ms, charged, unpriced, misquoted)


_BEFORE = -1
"""The place of what was known before the batch; the batch's length is the place of what is not known yet."""


def _first(of: Ints, does: Bools, before: Bools) -> Ints:
    """The place in a batch of the first event that ``does [E]``, ``[I]``, by each event's impression ``of [E]``."""
    place = np.flatnonzero(does)
    at = np.where(before, _BEFORE, len(of))
    np.minimum.at(at, of[place], place)
    return at


def proven(events: Events, slot: Ints, catalogue: Catalogue, seal: Seal) -> tuple[Bools, int]:
    """Which of ``events [E]``, of ads in ``slot [E]``, state their placement's price, and how many state another one.

    A placement made for somebody else does not count: its seals are genuine, but anybody might repeat them.
    """
    priced = np.zeros(len(events), dtype=np.bool_)
    sealed = np.flatnonzero(events["seal"])
    if not len(sealed):  # as in many a small slice: the hash of nothing takes as long as that of a few
        return priced, 0
    told = events[sealed]
    tags = seal.tags(told["placement"], told["ad"], told["price_micros"], catalogue.bid_type[slot[sealed]])
    right = (tags == told["seal"]) & told["own"]
    priced[sealed[right]] = True
    return priced, int((~right).sum())
