"""Training examples: what serving would have seen just before each impression, computed by the serving code.

Events run through `scoring.update.apply`; an example's inputs come from `scoring.gathering.gather` on the row as it is
strictly before the impression's time. So a model never learns from an input that serving will not have.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints, Singles
from scoring.catalogue import Catalogue
from scoring.events import Events, Kind, Outcome, Source
from scoring.features import FEATURE_DIM
from scoring.feedback import WINDOW_MS
from scoring.gathering import gather
from scoring.ids import MISSING, mix64, places_in
from scoring.inputs import CONTEXT_DIM, RATED, REVIEWED, STATS_DIM
from scoring.pending import keys_of
from scoring.rates import RateTable, counts_of
from scoring.rows import RING_SIZE, RowStore
from scoring.runs import begins, within
from scoring.tones import NOTHING_SAID, ToneHistory
from scoring.update import apply

ROWS_PER_CALL = 8192
"""Rows gathered at once: 12 MB."""
Progress = Callable[[int, int], None]
"""Called with events done and events in all."""


@dataclass(frozen=True)
class Items:
    """The catalogue as training sees it, by slot: ``tokens [N, T]``, ``dense [N, R]``, ``features [N, K]``.

    If the catalogue has vectors of titles, they follow the numbers in ``dense``, and the network uses them.
    """

    tokens: Ids
    dense: Singles
    features: Singles

    @classmethod
    def of(cls, catalogue: Catalogue) -> "Items":
        """The items of a catalogue, which may have been made without a model."""
        return cls(catalogue.tokens, catalogue.dense, catalogue.features)

    @cached_property
    def own(self) -> Bools:
        """Which tokens no other item has, ``[N, T]``: its id, and whatever else names it alone, as a brand may."""
        found, which, count = np.unique(self.tokens, return_inverse=True, return_counts=True)
        alone: Bools = ((count == 1) & (found > 0))[which].reshape(self.tokens.shape)
        return alone


@dataclass(frozen=True, slots=True)
class Examples:
    """E impressions in time order. ``item`` and ``history`` are catalogue slots, -1 where padded or unknown.

    About 1 KiB each: a hundred thousand are 100 MB.
    """

    time_ms: Ints  # [E]
    row: npt.NDArray[np.int32]  # [E] the user
    item: npt.NDArray[np.int32]  # [E]
    surface: npt.NDArray[np.uint16]  # [E] the place of the impression
    known_ms: Ints  # [E] when the window has passed, and a click or none is known
    label: Singles  # [E] 1 where a click answered the impression within the window
    converted: Singles  # [E] 1 where a purchase did
    viewed_s: Singles  # [E] the longest look that answered it, in seconds; 0 where none is told
    history: npt.NDArray[np.int32]  # [E, H]
    age: Singles  # [E, H] log1p of seconds
    kind: npt.NDArray[np.uint8]  # [E, H] HistoryKind
    interest: Singles  # [E, K]
    stats: Singles  # [E, S]
    context: Singles  # [E, X]

    def __len__(self) -> int:
        return len(self.label)

    def at(self, index: Ints | Bools | slice) -> "Examples":
        """The chosen examples; a slice of them shares their memory."""
        return Examples(*(getattr(self, field.name)[index] for field in fields(self)))

    def time_split(self, fraction: float) -> tuple["Examples", "Examples"]:
        """The earlier ``fraction`` (0 to 1) and the later rest; examples of one millisecond stay together."""
        if not len(self):
            return self, self
        return self.cut(self.time_ms[min(int(fraction * len(self)), len(self) - 1)])

    def cut(self, cut_ms: int | np.int64) -> tuple["Examples", "Examples"]:
        """Those before ``cut_ms`` and those from it on; both share the memory of these."""
        place = int(np.searchsorted(self.time_ms, cut_ms))
        return self.at(slice(place)), self.at(slice(place, None))


class Left(NamedTuple):
    """How many impressions make no example: the catalogue lacks their ad (``unknown``), they were told before
    (``repeated``), or they are more than one person makes (``crowded``; `scoring.cleaning`).
    """

    unknown: int
    repeated: int
    crowded: int

    @classmethod
    def of(cls, known: Bools, first: Bools, outcome: npt.NDArray[np.uint8]) -> "Left":
        """Of impressions ``[I]``: whether their ad is known, whether their id is new, and what became of each."""
        repeated = known & (~first | np.isin(outcome, REPEATED))
        crowded = known & ~repeated & (outcome != Outcome.APPLIED)
        return cls(*(int(np.count_nonzero(each)) for each in (~known, repeated, crowded)))

    def and_of(self, other: "Left") -> "Left":
        """Those of two parts of a log."""
        return Left(*(one + another for one, another in zip(self, other, strict=True)))


REPEATED = (Outcome.DUPLICATE, Outcome.REPLAYED, Outcome.RESHOWN)
"""What becomes of an event that was told before."""


class Collected(NamedTuple):
    """Examples, their places ``[E]`` among the events as `in_time_order` orders them, and which events count ``[N]``.

    ``left``: how many impressions are no example, and why. ``late``: how many of the examples were clicked, but only
    after their window.
    Events that do not count are duplicates, or show no real attention (`scoring.cleaning`); lanes do not learn of them.
    """

    examples: Examples
    place: Ints
    counts: Bools
    left: Left
    late: int


def collect(
    events: Events,
    store: RowStore,
    catalogue: Catalogue,
    progress: Progress | None = None,
    rates: RateTable | None = None,
    said: ToneHistory = NOTHING_SAID,
    window_ms: int = WINDOW_MS,
) -> Collected:
    """An example for each impression that counts and whose ad is in the catalogue, in time order.

    A click counts as the impression's within ``window_ms`` of it, as for the click layer; purchases and looks always.

    ``store`` and ``rates`` end in the state after all events; ``rates`` may start with earlier counts. ``said``: what
    reviews told, and when. ``events["row"]`` are rows of ``store``. Offsets are assigned anew, by time. An event id
    counts once. Events that a lane's rules keep from interest do not count, neither as an example nor as an answer.
    """
    events = in_time_order(events, store)
    slots = catalogue.slots_of(events["ad"])
    shown, first = events["source"] == Source.IMPRESSION, _first_of_id(events)
    wanted = shown & (slots != MISSING) & first
    out = _empty(events[wanted], slots[wanted])
    place = np.cumsum(wanted) - 1
    outcome, clicked, done = np.zeros(len(events), dtype=np.uint8), np.zeros(len(events), dtype=bool), 0
    for slice_ in _slices(events):
        seen = slice_[wanted[slice_]]
        if len(seen):
            _fill(out, place[seen], events[seen], slots[seen], store, catalogue)
        applied = apply(store, events[slice_], catalogue)
        outcome[slice_], clicked[slice_] = applied.outcome, applied.clicked
        done += len(slice_)
        if progress is not None:
            progress(done, len(events))
    rates = RateTable() if rates is None else rates
    rates.follow(catalogue)
    counts = outcome == Outcome.APPLIED
    out.stats[:, RATED:] = rates.running(slots, counts_of(events, counts, clicked))[wanted]
    out.stats[:, REVIEWED:] = said.before(events["ad"][wanted], out.time_ms)
    out.known_ms[:] = out.time_ms + window_ms
    out.label[:], late, out.converted[:], out.viewed_s[:] = _answers(events, wanted, counts, window_ms)
    kept = counts[wanted]
    if not kept.all():  # else no copy is needed
        columns = [getattr(out, field.name) for field in fields(out)]
        del out  # of a long log a GB: column by column, no two copies of all stand at once
        out = Examples(*[columns.pop(0)[kept] for _ in range(len(columns))])
    left = Left.of(slots[shown] != MISSING, first[shown], outcome[shown])
    return Collected(out, np.flatnonzero(wanted & counts), counts, left, int(late[kept].sum()))


def unanswered(impressions: Events, store: RowStore, catalogue: Catalogue, rates: RateTable | None = None) -> Examples:
    """Examples of ``impressions`` of known ads, all by the present state of ``store`` and ``rates``.

    Their labels are not filled in.
    """
    slots = catalogue.slots_of(impressions["ad"])
    out = _empty(impressions, slots)
    for start in range(0, len(impressions), ROWS_PER_CALL):
        part = np.arange(start, min(start + ROWS_PER_CALL, len(impressions)))
        _fill(out, part, impressions[part], slots[part], store, catalogue)
    if rates is not None:
        out.stats[:, RATED:] = rates.at(slots)
    return out


def in_time_order(events: Events, store: RowStore) -> Events:
    """Events by time, impressions first, else as given. Offsets follow the store's, since state ignores lower ones.

    An answer's ``shown_ms`` becomes the time of the impression that it answers (`answered_ms`), if that is there. A
    device whose clock is behind may date an answer before its impression; it gets its time then: else the answer would
    be among the inputs of its own example.
    """
    told_ms = answered_ms(events)
    answers = events["answers"] & (told_ms >= 0)
    shown_ms = np.where(answers, told_ms, events["shown_ms"])
    time_ms = np.where(answers, np.maximum(events["time_ms"], shown_ms), events["time_ms"])
    order = np.lexsort((events["source"], time_ms))
    ordered = events[order]
    ordered["time_ms"] = ordered["stream_ms"] = time_ms[order]
    ordered["shown_ms"] = shown_ms[order]
    ordered["offset"] = np.arange(len(ordered)) + store.rows["offset"].max(initial=-1) + 1
    return ordered


def answered_ms(events: Events) -> Ints:
    """When the impression that each event names was shown, -1 where there is none.

    A lane joins the two by the second, as the wire says (`scoring.pending.keys_of`): the time that an answer names may
    be cut off, or told by another clock. Of several in that second it is the one of the very millisecond, else the
    first.
    """
    shown = np.flatnonzero(events["source"] == Source.IMPRESSION)
    shown = shown[np.argsort(events["time_ms"][shown], kind="stable")]
    if not len(shown):
        return np.full(len(events), -1)
    exact, second = _names(events), keys_of(events["row"].astype(np.uint64), events["ad"], events["shown_ms"])
    seconds, first = np.unique(second[shown], return_index=True)
    at = places_in(seconds, second)
    of_second = np.where(at == MISSING, -1, events["shown_ms"][shown[first[at]]])
    return np.where(np.isin(exact, exact[shown]), events["shown_ms"], of_second)


def _first_of_id(events: Events) -> Bools:
    """Whether each event is the first of its id; ids are per person and topic, as in lanes."""
    first = np.zeros(len(events), dtype=np.bool_)
    whose = mix64(2 * events["row"].astype(np.uint64) + events["source"])
    _, at = np.unique(events["event"] ^ whose, return_index=True)
    first[at] = True
    return first


def _names(events: Events) -> Ids:
    """Hash, 64 bits, of user, item and time shown, by which an answer names its impression."""
    user = mix64(events["row"].astype(np.uint64))
    return mix64(events["ad"] ^ mix64(events["shown_ms"].astype(np.uint64) ^ user))


def _answers(events: Events, wanted: Bools, counts: Bools, window_ms: int) -> tuple[Singles, Bools, Singles, Singles]:
    """Whether a click (or more) answered each wanted impression within ``window_ms``, whether one did only later,
    whether a purchase did, and seconds looked.

    The answer may be anywhere in the log, but must be among those that ``counts [N]``: neither kept from interest by
    the rules, nor sent again. It names user, item and time shown, which are compared as one hash.
    """
    names, which = np.unique(_names(events), return_inverse=True)
    strongest, soonest = np.zeros((2, len(names)), dtype=np.uint8)
    viewed_ms = np.zeros(len(names), dtype=np.int64)
    said = events["answers"] & counts
    soon = said & (events["time_ms"] - events["shown_ms"] <= window_ms)
    np.maximum.at(strongest, which[said], events["kind"][said])
    np.maximum.at(soonest, which[soon], events["kind"][soon])
    np.maximum.at(viewed_ms, which[said], events["viewed_ms"][said])
    kind, seconds = strongest[which[wanted]], viewed_ms[which[wanted]] / 1000
    label = soonest[which[wanted]] >= Kind.CLICKED
    return (
        label.astype(np.float32),
        (kind >= Kind.CLICKED) & ~label,
        (kind == Kind.PURCHASED).astype(np.float32),
        seconds.astype(np.float32),
    )


def _slices(events: Events) -> Iterator[Ints]:
    """Places of the events in slices: no user has two times in a slice, and each user's times are in order.

    The n-th slice holds every user's n-th distinct time, since users' states do not depend on each other. All events of
    one user and millisecond see the state before it. There are as many slices as the busiest user has times.
    """
    order = np.lexsort((events["time_ms"], events["row"]))
    row, time_ms = events["row"][order], events["time_ms"][order]
    rank = np.cumsum(begins(row, time_ms))
    turn = np.empty(len(row), dtype=np.int64)
    turn[order] = within(rank, row)
    by_turn = np.argsort(turn, kind="stable")
    edges = np.searchsorted(turn[by_turn], np.arange(turn.max(initial=-1) + 2))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield by_turn[start:end]


def _empty(impressions: Events, slots: Ints) -> Examples:
    """Examples of ``impressions`` whose inputs and labels are still empty."""
    count = len(impressions)
    return Examples(
        time_ms=impressions["time_ms"].copy(),
        row=impressions["row"].copy(),
        item=slots.astype(np.int32),
        surface=impressions["surface"].copy(),
        known_ms=np.zeros(count, dtype=np.int64),
        label=np.zeros(count, dtype=np.float32),
        converted=np.zeros(count, dtype=np.float32),
        viewed_s=np.zeros(count, dtype=np.float32),
        history=np.full((count, RING_SIZE), MISSING, dtype=np.int32),
        age=np.zeros((count, RING_SIZE), dtype=np.float32),
        kind=np.zeros((count, RING_SIZE), dtype=np.uint8),
        interest=np.zeros((count, FEATURE_DIM), dtype=np.float32),
        stats=np.zeros((count, STATS_DIM), dtype=np.float32),
        context=np.zeros((count, CONTEXT_DIM), dtype=np.float32),
    )


def _fill(out: Examples, place: Ints, seen: Events, slots: Ints, store: RowStore, catalogue: Catalogue) -> None:
    inputs, history_slots = gather(catalogue, store.rows[seen["row"]], seen["time_ms"], slots[:, None], seen["surface"])
    out.history[place] = history_slots
    out.age[place] = inputs.history_age
    out.kind[place] = inputs.history_kind
    out.interest[place] = inputs.interest
    out.stats[place] = inputs.candidate_stats[:, 0]
    out.context[place] = inputs.context
