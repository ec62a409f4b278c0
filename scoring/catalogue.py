"""All ads as arrays, in every worker: enough to choose, score and price them without touching an object."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.features import (
    DENSE_DIM,
    FEATURE_DIM,
    TOKENS_MAX,
    Content,
    dense_features,
    feature_vector,
    token_ids,
    top_category,
)
from scoring.ids import EMPTY, MISSING, IdMap, id64, id64s
from scoring.shelf import Shelf
from scoring.text import WIDE_DIM, TextOf
from scoring.tones import ToneTable
from scoring.units import DAY_MS, FOREVER_MS
from scoring.value import BID_TYPES

Vectors = npt.NDArray[np.float32]
Encoder = Callable[[Ids, Vectors], Vectors]
"""Learned vectors ``[N, D]`` of token ids ``[N, TOKENS_MAX]`` and dense features ``[N, DENSE_DIM]``. Where the
catalogue has vectors of titles, they follow the dense features (``[N, WIDE_DIM]``)."""

ADS_MAX = 1_000_000
"""Ads a worker holds, ended ones included: 1.7 GB at D = 32, 0.3 GB more while rules or spent budgets bar some of them,
and 2 GB more with vectors of their titles."""
WITHDRAWN_KEPT_MS = 30 * DAY_MS
"""How long a withdrawn ad keeps its slot, at the least: as long as the longest cap looks back."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An ad as the catalogue takes it: content, and what its campaign offers."""

    content: Content
    campaign_id: str = ""
    advertiser_id: str = ""
    bid_micros: int = 0
    bid_type: str = "cpc"
    attention_micros: int = 0
    budget_micros: int | None = None
    active: bool = True
    start_ms: int = 0
    end_ms: int | None = None


class CatalogueError(ValueError):
    """An ad that the catalogue cannot take."""


LEARNED = "learned"
"""The column of the first model's vectors."""


def learned_column(version: str) -> str:
    """The column of a further model's vectors."""
    return f"{LEARNED}/{version}"


def _no_encoder(_tokens: Ids, dense: Vectors) -> Vectors:
    return np.zeros((len(dense), 0), dtype=np.float32)


_UNNAMED = id64("")
_COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "ad": (np.uint64, ()),
    "revision": (np.uint64, ()),
    "bid_micros": (np.int64, ()),
    "bid_type": (np.uint8, ()),
    "attention_micros": (np.int64, ()),
    "budget_micros": (np.int64, ()),
    "campaign": (np.uint64, ()),
    "advertiser": (np.uint64, ()),
    "category": (np.uint64, ()),
    "brand": (np.uint64, ()),
    "start_ms": (np.int64, ()),
    "end_ms": (np.int64, ()),
    "active": (np.bool_, ()),
    "withdrawn_ms": (np.int64, ()),  # 0: it is not withdrawn; 1: nobody knows when it was
    "features": (np.float32, (FEATURE_DIM,)),
    "tokens": (np.uint64, (TOKENS_MAX,)),
    "dense": (np.float32, (DENSE_DIM,)),
}

_OF_BUDGETS = "campaign", "budget_micros", "active", "end_ms"
"""Columns that determine campaigns' budgets."""


@dataclass
class Catalogue:
    """Slot map and columns. A withdrawn ad keeps its slot for ``kept_ms``: histories still refer to it.

    Then a new ad may take it: there are as many slots as ads that are there, or were within that time. The clock is the
    newest time that was told; ads withdrawn before there is one keep theirs. ``gone`` counts ads that lost theirs.

    ``names`` and ``campaigns`` repeat the ids of ads and campaigns by slot. Through `Entry` and `Content` each ad of a
    placement would cost four reads of memory outside the processor's cache instead of one.

    ``encode`` and ``dim`` are the model's; without a model there are no learned vectors (``dim`` 0). Further models
    have columns of their own (`attach`); ``broken`` gives the columns whose encoder failed, and why. ``titles``:
    vectors of titles, for models that ask for them; without it there are none. ``tones``: how ads are reviewed.
    ``budget_ms``: for each campaign, by 64-bit id, when an ad last changed its budget; 0 or absent where that time is
    unknown.
    """

    encode: Encoder = _no_encoder
    dim: int = 0
    ads_max: int = ADS_MAX
    entries: list[Entry] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    campaigns: list[str] = field(default_factory=list)
    version: int = 0
    titles: TextOf | None = None
    tones: ToneTable = field(default_factory=ToneTable)
    budget_ms: dict[int, int] = field(default_factory=dict)
    kept_ms: int = WITHDRAWN_KEPT_MS
    gone: int = 0

    def __post_init__(self) -> None:
        self._slots = IdMap()
        self._shelf: Shelf | None = None
        self._shelf_version = -1
        self._now_ms = 1  # until a time is told
        self._oldest_ms = FOREVER_MS  # no ad that is withdrawn now was so earlier, but for those of unknown time
        self._open: tuple[Shelf, Bools, Shelf] | None = None
        self._tone: Vectors = self.tones.of(np.zeros(0, dtype=np.uint64))
        self._tone_version = -1, -1
        self._encoders: dict[str, Encoder] = {}
        self.broken: dict[str, str] = {}
        dense = (np.float32, (DENSE_DIM if self.titles is None else WIDE_DIM,))
        self._columns = {
            name: np.zeros((0, *shape), dtype=dtype)
            for name, (dtype, shape) in ({**_COLUMNS, "dense": dense, LEARNED: (np.float32, (self.dim,))}).items()
        }

    def __len__(self) -> int:
        return len(self.entries)

    def __getattr__(self, name: str) -> Any:
        """A column by name, ``[len(self), …]``."""
        columns = self.__dict__.get("_columns", {})
        if name not in columns:
            raise AttributeError(name)
        return columns[name][: len(self.entries)]

    def slots_of(self, ads: Ids) -> Ints:
        """Slots of 64-bit ad ids, any shape; `MISSING` where unknown."""
        return self._slots.get(ads)

    @property
    def tone(self) -> Vectors:
        """What reviews tell of every ad, ``[len(self), TONES_DIM]``; cached until ads or tones change."""
        version = self.version, self.tones.version
        if self._tone_version != version:
            self._tone, self._tone_version = self.tones.of(self.ad), version
        return self._tone

    def upsert(self, entries: Sequence[Entry], told_ms: Sequence[int] = ()) -> None:
        """Add or change ads ``entries [N]``, as of ``told_ms [N]`` (empty, or 0: time unknown).

        Raises `CatalogueError` where two ad ids share a 64-bit id or the bound is reached. The content is encoded in
        one call; nothing is changed where anything is refused.
        """
        if not entries:
            return
        last = list({entry.content.item_id: at for at, entry in enumerate(entries)}.values())
        times, entries = _times(told_ms, len(entries))[last], [entries[at] for at in last]
        ids = np.array([id64(entry.content.item_id) for entry in entries], dtype=np.uint64)
        slots = self._slots.get(ids)
        again = np.setdiff1d(self._left(), slots)[: (slots == MISSING).sum()]
        self._check(entries, ids, slots, len(again))
        tokens = np.stack([token_ids(entry.content) for entry in entries])
        dense = self._dense(entries)
        learned = self.encode(tokens, dense)
        new = np.flatnonzero(slots == MISSING)
        self._forget(again)
        slots[new] = np.append(again, len(self.entries) + np.arange(len(new) - len(again)))
        for place in new.tolist():
            self._slots.set(int(ids[place]), int(slots[place]))
        added = [entries[place] for place in new[len(again) :].tolist()]
        self.entries += added
        for names in (self.names, self.campaigns):
            names.extend([""] * len(added))
        self._reserve(len(self.entries))
        values = {
            "ad": ids,
            "revision": [revision_of(entry) for entry in entries],
            "bid_micros": [entry.bid_micros for entry in entries],
            "bid_type": [BID_TYPES[entry.bid_type] for entry in entries],
            "attention_micros": [entry.attention_micros for entry in entries],
            "budget_micros": [entry.budget_micros or 0 for entry in entries],
            "campaign": id64s([entry.campaign_id for entry in entries]),
            "advertiser": id64s([entry.advertiser_id for entry in entries]),
            "category": id64s([top_category(entry.content.category) for entry in entries]),
            "brand": id64s([entry.content.brand for entry in entries]),
            "start_ms": [entry.start_ms for entry in entries],
            "end_ms": [FOREVER_MS if entry.end_ms is None else entry.end_ms for entry in entries],
            "active": [entry.active and entry.budget_micros != 0 for entry in entries],
            "withdrawn_ms": 0,
            "features": np.stack([feature_vector(entry.content) for entry in entries]),
            "tokens": tokens,
            "dense": dense,
            LEARNED: learned,
            **self._further(tokens, dense),
        }
        self._write(slots, values, times)
        for slot, entry in zip(slots.tolist(), entries, strict=True):
            self.entries[slot], self.names[slot] = entry, entry.content.item_id
            self.campaigns[slot] = entry.campaign_id

    def _left(self) -> Ints:
        """Slots whose ads were withdrawn so long ago that others may take them.

        They are searched for only where there may be one: ads refused by a full catalogue come here one by one.
        """
        until = self._now_ms - self.kept_ms
        if until < self._oldest_ms:
            return np.zeros(0, dtype=np.int64)
        since = self.withdrawn_ms
        self._oldest_ms = int(since.min(where=since > 1, initial=FOREVER_MS))
        return np.flatnonzero((since > 1) & (since <= until))

    def _forget(self, slots: Ints) -> None:
        """Make the rows in ``slots`` as if there had never been an ad, for others to take them."""
        self._slots.drop(self.ad[slots])
        for column in self._columns.values():
            column[slots] = 0
        self.gone += len(slots)
        if len(slots) and len(self.budget_ms) > 2 * len(self):
            held = set(self.campaign.tolist())
            self.budget_ms = {campaign: ms for campaign, ms in self.budget_ms.items() if campaign in held}

    def _write(self, slots: Ints, values: Mapping[str, Any], told_ms: Ints) -> None:
        """Set columns of the ads in ``slots [N]``, as of ``told_ms [N]``; notes whose budget that changes."""
        before = [self._columns[name][slots] for name in _OF_BUDGETS]
        for name, column in values.items():
            self._columns[name][slots] = column
        after = [self._columns[name][slots] for name in _OF_BUDGETS]
        changed = np.any([old != new for old, new in zip(before, after, strict=True)], axis=0)
        for campaigns in (before[0], after[0]):  # also of the campaign that an ad leaves
            self.budget_ms.update(zip(campaigns[changed].tolist(), told_ms[changed].tolist(), strict=True))
        self._now_ms = max(self._now_ms, int(told_ms.max()))
        self.version += 1

    def _dense(self, entries: Sequence[Entry]) -> Vectors:
        """Dense features, followed by the vectors of titles where there are any."""
        dense = np.stack([dense_features(entry.content) for entry in entries])
        if self.titles is None:
            return dense
        return np.concatenate([dense, self.titles([entry.content.title for entry in entries])], axis=1)

    # --- further models --------------------------------------------------------------------------------------

    def attach(self, column: str, encode: Encoder, dim: int) -> None:
        """Keep a further model's vectors in ``column``, of ads that change from now on; `encoded` adds the others."""
        self._columns[column] = np.zeros((len(self._columns["ad"]), dim), dtype=np.float32)
        self._encoders[column] = encode

    def detach(self, column: str) -> None:
        """Forget a further model's vectors."""
        self._columns.pop(column, None)
        self._encoders.pop(column, None)
        self.broken.pop(column, None)

    def told(self, start: int, end: int) -> tuple[Ids, Vectors, Ids]:
        """Token ids, dense features and revisions of the slots from ``start`` to before ``end``: copies."""
        return self.tokens[start:end].copy(), self.dense[start:end].copy(), self.revision[start:end].copy()

    def encoded(self, column: str, start: int, vectors: Vectors, revisions: Ids) -> None:
        """Take vectors ``[N, D]`` of what `told` gave; skips ads that changed since: they were encoded then."""
        same = np.flatnonzero(self.revision[start : start + len(vectors)] == revisions)
        self._columns[column][start + same] = vectors[same]

    def _further(self, tokens: Ids, dense: Vectors) -> dict[str, Vectors]:
        """Vectors of ads by further models' columns; a model that fails is left out, and not asked again."""
        out = {}
        for column, encode in self._encoders.items():
            if column in self.broken:
                continue
            try:
                out[column] = encode(tokens, dense)
            except Exception as error:  # noqa: BLE001 - a model that is on trial must not stop the catalogue
                self.broken[column] = f"it does not encode an ad: {error}"
        return out

    def _check(self, entries: list[Entry], ids: Ids, slots: Ints, free: int) -> None:
        new_ids: dict[int, str] = {}
        for entry, number, slot in zip(entries, ids.tolist(), slots.tolist(), strict=True):
            name = entry.content.item_id
            held = new_ids.setdefault(number, name) if slot == MISSING else self.entries[slot].content.item_id
            if held != name:
                raise CatalogueError(f"ads {name!r} and {held!r} have one 64-bit id; rename one")
        ads = len(self) + int((slots == MISSING).sum()) - free
        if ads > self.ads_max:
            raise CatalogueError(
                f"{ads:,} ads are more than the bound of {self.ads_max:,}; withdraw ended ads from the ads topic, "
                f"which frees their places after {self.kept_ms // DAY_MS} days or at a restart, or raise the bound"
            )

    def _reserve(self, count: int) -> None:
        held = len(self._columns["ad"])
        if count <= held:
            return
        for name, column in self._columns.items():
            grown = np.zeros((max(count, held * 5 // 4, 1024), *column.shape[1:]), dtype=column.dtype)
            grown[:held] = column
            self._columns[name] = grown

    def withdraw(self, ad_ids: Sequence[str], told_ms: Sequence[int] = ()) -> None:
        """Stop showing ads ``[N]``, as tombstones on the topic ask, as of ``told_ms [N]`` (empty, or 0: time unknown).

        Unknown ids change nothing, nor does a second tombstone, or that of a refused ad whose 64-bit id another ad has.
        A withdrawn ad's budget does not count for its campaign; its bid stays, for impressions shown before.
        """
        slots = self._slots.get(np.array([id64(ad_id) for ad_id in ad_ids], dtype=np.uint64))
        held = zip(slots.tolist(), ad_ids, strict=True)
        on = np.flatnonzero([s != MISSING and self.names[s] == ad and not self.withdrawn_ms[s] for s, ad in held])
        if len(on):
            times = _times(told_ms, len(slots))[on]
            since = np.maximum(times, self._now_ms)
            self._write(slots[on], {"active": False, "budget_micros": 0, "withdrawn_ms": since}, times)
            self._oldest_ms = min(self._oldest_ms, int(since.min()))

    def groups(self, of: str, slots: Ints) -> Ids:
        """Category, brand, campaign or advertiser of the ads in ``slots``, as 64-bit ids; `EMPTY` where not named.

        Two ads that name none do not share a group.
        """
        ids: Ids = self._columns[of].take(slots)
        return np.where(ids == _UNNAMED, EMPTY, ids)

    def eligible(self, now_ms: int) -> Ints:
        """Slots of ads that may be shown at ``now_ms``, in slot order."""
        return self.shelf(now_ms).slots

    def shelf(self, now_ms: int) -> Shelf:
        """The ads that may be shown at ``now_ms``, as a `Shelf`; cached until an ad starts, ends or changes."""
        if self._shelf is not None and self._shelf_version == self.version:
            shelf = self._shelf
            if shelf.since_ms <= now_ms < shelf.until_ms:
                return shelf
        self._shelf_version = self.version
        self._shelf = Shelf.at(now_ms, self.active, self.start_ms, self.end_ms, self.features, self.bid_micros)
        return self._shelf

    def open_shelf(self, now_ms: int, barred: Bools) -> Shelf:
        """`shelf` without the ads that are ``barred [len(self)]``; cached until it changes, or another mask is given.

        A mask must not be changed in place.
        """
        shelf = self.shelf(now_ms)
        if self._open is None or self._open[0] is not shelf or self._open[1] is not barred:
            self._open = shelf, barred, shelf.without(barred)
        return self._open[2]


def _times(told_ms: Sequence[int], size: int) -> Ints:
    """``told_ms`` as an array, ``[size]``; zeros where it is empty."""
    return np.array(told_ms, dtype=np.int64) if told_ms else np.zeros(size, dtype=np.int64)


def revision_of(entry: Entry) -> int:
    """Hash of the whole ad: two ads with the same revision are scored and priced alike."""
    return id64(msgspec.json.encode(entry))
