"""What the click layers of all lanes have learned, joined: what a lane serves rests on all outcomes, not its own alone.

A lane learns from its own outcomes alone, so its layer is a function of its stream. What it serves joins its layer with
what the others last reported of theirs:

- a weight is the mean over all lanes, weighted by evidence: AdaGrad's sum of squared gradients of that very weight
  (mixing of parameters: McDonald, Hall & Mann 2010; the sums are the diagonal of the information, as in Duchi 2011);
- clicks and expected clicks of ads and of slots are added up, and how often ads were shown and clicked.

Each lane's last report counts, so reports may come late, twice or in any order, and a worker that has just started
serves as all the others do.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from scoring.arrays import Floats, Ids, Ints
from scoring.clicks import CAUTION, RECORD, ClickModel
from scoring.examination import Examination, curve_of
from scoring.feedback import ClickLayer

BUCKETS = 64
"""Records of ads are reported by bucket; in a full catalogue each has about 16,000 ads."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a lane reports of its layer, except ads.

    ``models``: weights and AdaGrad's sums ``[F]`` by number of attention model; ``slots [2, K]``: clicks, and clicks
    expected, of each.
    """

    models: Mapping[int, tuple[Floats, Floats]]
    slots: Floats

    @classmethod
    def of(cls, layer: ClickLayer) -> Self:
        """The report of a lane that has this layer."""
        models = {number: (one.model.array, one.model.caution) for number, one in layer.learners.items()}
        return cls(models, layer.examination.record)


class Pool:
    """The last report of each lane. An ad costs 32 bytes a lane, its id and its place, while some lane knows it.

    ``records [N, RECORD]`` by lane: of ads at their ``place``, as `scoring.clicks.AdLifts` has them; ``news`` by the
    lane that reads.
    """

    def __init__(self) -> None:
        self.learned: dict[int, Learned] = {}
        self.place: dict[int, int] = {}
        self.records: dict[int, Floats] = {}
        self.news: dict[int, set[int]] = {}
        self._ads = array("Q")  # by place
        self._bucket: dict[int, array[int]] = {}  # the places of its ads
        self._free: list[int] = []

    def tell(self, lane: int, learned: Learned) -> None:
        """Take what ``lane`` says of its layer."""
        self.learned[lane] = learned

    def tell_ads(self, lane: int, ads: Ids, records: Floats) -> None:
        """Take the records ``[N, RECORD]`` that ``lane`` has of ``ads [N]``."""
        self._put(lane, self._places(ads), records)

    def tell_bucket(self, lane: int, bucket: int, ads: Ids, records: Floats) -> None:
        """Take the records ``[N, RECORD]`` of ``ads [N]``: all ads of a bucket of which ``lane`` has records.

        It has none of the bucket's other ads: their former records are dropped, and ads that no lane has.
        """
        places = self._places(ads)
        self._put(lane, places, records)
        held, others = self._held(lane), np.array(self._bucket.get(bucket, ()), dtype=np.int64)
        named = np.zeros(len(held), dtype=np.bool_)
        named[places] = True
        idle = others[~named[others]]
        gone = idle[held[idle].any(axis=1)]
        self._put(lane, gone, np.zeros((len(gone), RECORD)))
        for each in [*self.records]:
            idle = idle[~self._held(each)[idle].any(axis=1)]
        for place in idle.tolist():
            del self.place[self._ads[place]]
            self._free.append(place)
        self._bucket[bucket] = array("q", np.setdiff1d(others, idle).tobytes())

    def _put(self, lane: int, places: Ints, records: Floats) -> None:
        """Take a lane's records at ``places [N]``, and tell the others which of them are new."""
        held = self._held(lane)
        new = places[(held[places] != records).any(axis=1)]
        held[places] = records
        # The view is not kept: while there is one the array of ads cannot grow.
        changed = np.frombuffer(self._ads, dtype=np.uint64)[new].tolist()
        for reader, news in self.news.items():
            if reader != lane:
                news.update(changed)

    def _places(self, ads: Ids) -> Ints:
        return np.array([self._placed(ad) for ad in ads.tolist()], dtype=np.int64)

    def _placed(self, ad: int) -> int:
        """The place of its records, which it gets where it has none."""
        place = self.place.get(ad)
        if place is None:
            if not self._free:
                self._free.append(len(self._ads))
                self._ads.append(ad)
            place = self.place[ad] = self._free.pop()
            self._ads[place] = ad
            self._bucket.setdefault(ad % BUCKETS, array("q")).append(place)
        return place

    def _held(self, lane: int) -> Floats:
        """The lane's records, by place, with room for all ads that there are."""
        held = self.records.get(lane, np.zeros((0, RECORD)))
        if (more := len(self._ads) - len(held)) > 0:
            room = np.zeros((max(more, len(held)), RECORD))  # doubling: growing costs O(ads) in all
            held = np.concatenate([held, room])
            self.records[lane] = held
        return held

    def others(self, lane: int) -> "Others":
        """What all lanes but ``lane`` have told, for that one; to one that never asked, all of it is news."""
        if lane not in self.news:
            self.news[lane] = set(self.place)
        return Others(self, lane)


@dataclass(frozen=True, slots=True)
class Others:
    """What other lanes have told, as one lane joins it with its own."""

    _pool: Pool
    _lane: int

    def _told(self) -> list[Learned]:
        return [learned for lane, learned in self._pool.learned.items() if lane != self._lane]

    def weights(self, number: int, own: ClickModel) -> Floats:
        """The weights over the log-odds of the attention model of this ``number``, ``[F]``: ``own`` and the others'."""
        told = [learned.models[number] for learned in self._told() if number in learned.models]
        if not told:
            return own.array
        weights = np.array([own.array, *(weights for weights, _ in told)])
        evidence = np.array([own.caution, *(sums for _, sums in told)]) - CAUTION
        total = evidence.sum(axis=0)
        mean = (evidence * weights).sum(axis=0) / np.where(total > 0, total, 1)
        joined: Floats = np.where(total > 0, mean, own.array)
        return joined

    def records(self, ads: Sequence[int]) -> Floats:
        """The sums of the records of ``ads [N]`` in all other lanes, ``[N, RECORD]``."""
        pool, out = self._pool, np.zeros((len(ads), RECORD))
        if not pool.place:
            return out
        places = np.array([pool.place.get(ad, -1) for ad in ads], dtype=np.int64)
        for lane, held in pool.records.items():
            if lane != self._lane:
                known = (places >= 0) & (places < len(held))
                out[known] += held[places[known]]
        return out

    def news(self) -> set[int]:
        """Ads of which others have told something new since this was last asked."""
        news = self._pool.news
        found, news[self._lane] = news[self._lane], set()
        return found

    def examined(self, own: Examination) -> Floats:
        """How likely slots are looked at ``[K]``, by the outcomes of all lanes; a curve that is declared stays."""
        told = [learned.slots for learned in self._told()]
        if own.declared or not told:
            return own.curve
        return curve_of(_added([own.record, *told]))


def _added(records: Sequence[Floats]) -> Floats:
    """The sum of records ``[2, K]`` of slots, each with a ``K`` of its own."""
    out = np.zeros((2, max(record.shape[1] for record in records)))
    for record in records:
        out[:, : record.shape[1]] += record
    return out
