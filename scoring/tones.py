"""How ads are reviewed: what reviews tell of a candidate, perhaps before anyone was shown it here.

A *tone* is the mean chance that an ad's latest reviews are good (`scoring.sentiment`). A model gets how far it lies
above the tone of all reviews, shrunk towards 0 by `TONE_PRIOR` reviews, and how many reviews there are. It gets them
beside the click rates (`scoring.rates`), and not as content: reviews come daily, and so no ad has to be encoded anew.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ids, Ints, Singles
from scoring.ids import MISSING, IdMap
from scoring.runs import begins

Said = npt.NDArray[np.float64]
"""``[N, 2]``: reviews, and their tone in [0, 1]. No reviews: no tone."""

TONES = ("tone", "log_reviews")
TONES_DIM = len(TONES)
MEMORY = 100
"""Reviews over which a tone is a plain mean; beyond them, older ones count ever less."""
TONE_PRIOR = 8.0
"""Reviews of the usual tone that a tone is shrunk towards."""


def told(said: Said, usual: Floats | float) -> Singles:
    """`TONES` of ``said [N, 2]``, where ``usual`` is the tone of all reviews; in half precision: receipts keep it."""
    reviews, tone = np.minimum(said[:, :1], MEMORY), said[:, 1:]
    above = (tone - usual) * reviews / (reviews + TONE_PRIOR)
    return np.column_stack([above, np.log1p(reviews) / 5]).astype(np.float16).astype(np.float32)


def weight(said: Said) -> Said:
    """What ads' tones add to the tone of all reviews, ``[N, 2]``: reviews, and reviews × tone."""
    reviews = np.minimum(said[:, 0], MEMORY)
    return np.column_stack([reviews, reviews * said[:, 1]])


_NOTHING: Singles = np.zeros((1, TONES_DIM), dtype=np.float32)


class ToneTable:
    """The tone of each ad that has one, by 64-bit id, whether or not the ad is known yet: 74 bytes an ad of 100,000.

    It holds what the topic of tones holds: once withdrawn ads leave more than half of the places, these are freed.
    """

    def __init__(self) -> None:
        self._places = IdMap()
        self._ads: Ids = np.zeros(0, dtype=np.uint64)
        self._said: Said = np.zeros((0, 2))
        self._told: Singles = _NOTHING
        self.version = 0
        """How often it has changed."""

    def __len__(self) -> int:
        return len(self._said)

    def take(self, ads: Ids, said: Said) -> None:
        """Let ``ads [N]``, each named once, have been reviewed as ``said [N, 2]``."""
        new = ads[self._places.get(ads) == MISSING]
        self._said = np.append(self._said, np.zeros((len(new), 2)), axis=0)
        self._place(np.append(self._ads, new), len(self._ads))
        self._said[self._places.get(ads)] = said
        if 2 * np.count_nonzero(left := self._said[:, 0] == 0) > len(self):
            self._said, self._places = self._said[~left], IdMap()
            self._place(self._ads[~left], 0)
        count, total = weight(self._said).sum(axis=0)
        self._told = np.append(told(self._said, total / max(count, 1)), _NOTHING, axis=0)
        self.version += 1

    def _place(self, ads: Ids, first: int) -> None:
        """Let ``ads`` have the places that they stand in, from the ``first`` on."""
        self._ads = ads
        for place, ad in enumerate(ads[first:].tolist(), first):
            self._places.set(ad, place)

    def of(self, ads: Ids) -> Singles:
        """What is told of ``ads [N]``, ``[N, TONES_DIM]``."""
        return self._told.take(self._places.get(ads), axis=0)  # `MISSING` is the last


@dataclass(frozen=True, slots=True)
class ToneHistory:
    """What was said of ads, and when: ``ads [T]``, ``time_ms [T]``, ``said [T, 2]``, in order of time."""

    ads: Ids
    time_ms: Ints
    said: Said

    def __len__(self) -> int:
        return len(self.ads)

    def before(self, ads: Ids, time_ms: Ints) -> Singles:
        """What was told of ``ads [E]`` strictly before ``time_ms [E]``, ``[E, TONES_DIM]``, as `ToneTable` tells it."""
        latest = self._latest(ads, time_ms)
        said = np.append(self.said, np.zeros((1, 2)), axis=0)[latest]
        usual = np.append(0.0, self._usual())[np.searchsorted(self.time_ms, time_ms)]
        return told(said, usual[:, None])

    def _latest(self, ads: Ids, time_ms: Ints) -> Ints:
        """Which was said last of ``ads [E]``, ``[E]``; `MISSING` where nothing was. All in one line, by ad and time."""
        said, at = len(self.ads), np.arange(len(self.ads) + len(ads))
        ad, when = np.append(self.ads, ads), np.append(self.time_ms, time_ms)
        is_said = at < said
        order = np.lexsort((is_said, when, ad))  # a question comes before what is said at the same moment
        ad, is_said = ad[order], is_said[order]
        first = np.maximum.accumulate(np.where(begins(ad), at, 0))
        last = np.maximum.accumulate(np.where(is_said, at, MISSING))
        found = np.empty_like(at)
        found[order] = np.where(last >= first, order[last], MISSING)
        return found[said:]

    def _usual(self) -> Floats:
        """How all reviews sounded, ``[T]``, once each of them was said."""
        by_ad = np.argsort(self.ads, kind="stable")
        counted = weight(self.said)[by_ad]
        again = np.flatnonzero(~begins(self.ads[by_ad]))
        more = counted.copy()
        more[again] -= counted[again - 1]
        counted[by_ad] = more
        count, total = counted.cumsum(axis=0).T
        usual: Floats = total / np.maximum(count, 1)
        return usual


NOTHING_SAID = ToneHistory(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
