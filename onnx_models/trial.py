"""A log split in time into training and test; in the test, users' state is frozen or follows the stream."""

import copy
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

import numpy as np
import numpy.typing as npt

from onnx_models.examples import (
    Collected,
    Examples,
    Items,
    Left,
    Progress,
    answered_ms,
    collect,
    in_time_order,
    unanswered,
)
from onnx_models.metrics import Floats
from scoring.arrays import Ints
from scoring.catalogue import Catalogue
from scoring.events import Events, Kind, Source
from scoring.feedback import ClickLayer, Learning, Observed
from scoring.impressions import Impressions
from scoring.inputs import REVIEWED, closeness_of
from scoring.rates import RateTable
from scoring.rows import RowStore
from scoring.tones import NOTHING_SAID, ToneHistory

PART_MIN = 0.01
"""Least share of a log's impressions on either side of the split: one wrong time could leave nothing on a side."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The test's events in time order, as the online click layer takes them, and how it learns. ``place [E]``: places
    of the examples.
    """

    events: Events
    users: npt.NDArray[np.uint64]
    place: Ints
    learning: Learning

    @classmethod
    def of(
        cls, events: Events, users: npt.NDArray[np.uint64], collected: Collected, learning: Learning | None = None
    ) -> Self:
        """Those of ``events [N]``, in time order, that count, as for a lane's layer; ``users [N]``: who acted."""
        counts = collected.counts
        place = np.cumsum(counts)[collected.place] - 1
        return cls(events[counts], users[counts], place, learning or Learning())

    def observe(
        self, logit: Floats, examples: Examples, learning: Learning | None = None
    ) -> tuple[ClickLayer, Observed]:
        """A click layer that begins with the stream, and what it predicts for the examples ``[E]`` while it learns.

        It is the worker's own code, so the outcome of an impression is learnt only after its window. ``learning``: how
        it learns, if not as workers do.
        """
        closeness = closeness_of(examples.stats)
        shown = Impressions(self.place, logit.astype(np.float32), examples.context, closeness=closeness)
        nobody = np.zeros(len(self.events), dtype=np.bool_)
        layer = ClickLayer(learning or self.learning)
        return layer, layer.observe(self.events, self.users, nobody, shown)


@dataclass(frozen=True, slots=True)
class Span:
    """How many examples, and the times of the first and the last; 0 where there are none."""

    count: int
    from_ms: int
    to_ms: int

    @classmethod
    def of(cls, examples: Examples) -> Self:
        """That of ``examples``, which are in time order."""
        ends = examples.time_ms[[0, -1]].tolist() if len(examples) else (0, 0)
        return cls(len(examples), *ends)


@dataclass(frozen=True, slots=True)
class Trial:
    """``before`` only tells which ads were looked at for long; ``learn`` tells all. ``frozen``, ``stateful``: the test.

    In ``frozen``, users' state is that of the moment when the test begins, as in ``store`` and ``rates``. ``said``:
    what reviews told, and when. ``left``: how many impressions are in no part, and why. ``late``: how many impressions
    were clicked only after their window. ``astray``: how many clicks name an impression that the log lacks.
    """

    catalogue: Catalogue
    items: Items
    before: Examples
    learn: Examples
    frozen: Examples
    stateful: Examples
    stream: Stream
    cut_ms: int
    store: RowStore
    rates: RateTable
    said: ToneHistory
    left: Left
    late: int
    astray: int


class SplitError(ValueError):
    """A log that cannot be split at the wanted time, though perhaps at another."""


def split_ms(events: Events, from_ms: int, share: float) -> int:
    """The moment when a ``share`` of the time has passed from the first impression since ``from_ms`` to the last.

    Raises `ValueError` where there are none, `SplitError` where a side of it has hardly any (`PART_MIN`).
    """
    shown = events["time_ms"][(events["source"] == Source.IMPRESSION) & (events["time_ms"] >= from_ms)]
    if not len(shown):
        raise ValueError("the log has no impressions; expected one that has some")
    return moment_of(shown, share)


def moment_of(shown_ms: Ints, share: float) -> int:
    """The moment when a ``share`` of the time of the impressions has passed. Raises `SplitError`, as `split_ms`."""
    first_ms, last_ms = int(shown_ms.min()), int(shown_ms.max())
    cut_ms = first_ms + math.ceil(share * (last_ms - first_ms))
    early = int((shown_ms < cut_ms).sum())
    if not PART_MIN <= early / len(shown_ms) <= 1 - PART_MIN:
        ends = " to ".join(datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (first_ms, last_ms))
        raise SplitError(
            f"{early:,} of {len(shown_ms):,} impressions are of the first {share:.0%} of the log's time, {ends}; "
            f"expected {PART_MIN:.0%} on either side. Has one of them a wrong time?"
        )
    return cut_ms


def prepare(
    events: Events,
    users: npt.NDArray[np.uint64],
    store: RowStore,
    catalogue: Catalogue,
    *,
    from_ms: int,
    cut_ms: int,
    said: ToneHistory = NOTHING_SAID,
    progress: Progress | None = None,
    learning: Learning | None = None,
) -> Trial:
    """Split ``events`` at ``cut_ms``; impressions before ``from_ms`` only tell looks.

    ``learning``: how workers' click layers learn; a click counts within its window.
    ``users [rows]``: 64-bit id of each row's user; ``store`` is empty, and ends in the state after all events. Raises
    `ValueError` where no impression of the training part, or of the test, makes an example, or no click answers any.
    """
    events = in_time_order(events, store)
    astray = _astray(events)
    place = int(np.searchsorted(events["time_ms"], cut_ms))
    early, late = events[:place], events[place:]

    def on(done: int, _: int) -> None:
        if progress is not None:
            progress(done, len(events))

    rates, learning = RateTable(), learning or Learning()
    first = collect(early, store, catalogue, on, rates, said, learning.window_ms)
    before, learn = first.examples.cut(from_ms)
    _require_some(len(learn), first.left, "to learn from")
    still, still_rates = same_rows(store), copy.deepcopy(rates)
    window_ms = learning.window_ms
    followed = collect(late, store, catalogue, lambda done, _: on(len(early) + done, 0), rates, said, window_ms)
    stateful = followed.examples
    _require_some(len(stateful), followed.left, "of the test")
    frozen = unanswered(late[followed.place], still, catalogue, still_rates)
    frozen.stats[:, REVIEWED:] = said.before(catalogue.ad[frozen.item], np.full(len(frozen), cut_ms))
    told = {name: getattr(stateful, name) for name in ("known_ms", "label", "converted", "viewed_s")}
    return Trial(
        catalogue=catalogue,
        items=Items.of(catalogue),
        before=before,
        learn=learn,
        frozen=replace(frozen, **told),
        stateful=stateful,
        stream=Stream.of(late, users[late["row"]], followed, learning),
        cut_ms=cut_ms,
        store=still,
        rates=still_rates,
        said=said,
        left=first.left.and_of(followed.left),
        late=first.late + followed.late,
        astray=astray,
    )


def _astray(events: Events) -> int:
    """How many clicks name an impression that is not there. Raises `ValueError` where no click answers any."""
    clicks = (events["source"] == Source.CLICK) & (events["kind"] >= Kind.CLICKED)
    named = clicks & events["answers"]
    astray = named & (answered_ms(events) < 0)
    if clicks.any() and not (named & ~astray).any():
        raise ValueError(
            f"none of the {clicks.sum():,} clicks answers an impression: {(clicks & ~named).sum():,} name none, "
            f"{astray.sum():,} one that the log lacks; expected user_id, ad_id and impression_time_ms to be an "
            "impression's user_id, ad_id and time_ms"
        )
    return int(astray.sum())


def _require_some(examples: int, left: Left, what: str) -> None:
    """Raise `ValueError` where no impression makes an example, with what helps against what most of them lack."""
    if examples:
        return
    helps = "expected the ads that were shown among the log's (ads.parquet)"
    if left.unknown < left.crowded + left.repeated:
        helps = "expected each impression once, and of people, as the rules of workers know them"
    raise ValueError(f"no impressions {what}: {told_of(left)}; {helps}")


def told_of(left: Left) -> str:
    """How many impressions make no example and why, for people; "" where all do."""
    why = {
        "of ads that the catalogue lacks": left.unknown,
        "told before": left.repeated,
        "more than one person makes": left.crowded,
    }
    return ", ".join(f"{count:,} are {name}" for name, count in why.items() if count)


def same_rows(store: RowStore) -> RowStore:
    """A copy of a store in which nobody was forgotten, each row in its place."""
    out = RowStore()
    out.put([user for user in store.users if user is not None], store.rows[: len(store.users)])
    return out


def logit_of(chance: Floats) -> Floats:
    """Log-odds of probabilities, clipped to what float32 can tell from 0 and 1."""
    p = np.clip(chance.astype(np.float64), 1e-6, 1 - 1e-6)
    odds: Floats = np.log(p / (1 - p))
    return odds
