"""How often ads, and brands, are clicked where they are shown: what the past of everybody tells of a candidate.

Beside it stands what reviews tell (`scoring.tones`), as of when the catalogue was last followed.

An impression at a known place counts once it is applied, and the first click that answers it (or cart, or purchase) as
soon as it comes: whoever clicks three times does not make an ad seem liked. These are plain sums, so the counts of
lanes add up. An impression counts as much as its slot is looked at, by the assumed curve, so that an ad that stands low
for a while does not seem disliked and stay there. For an ad, and for all ads of its brand together, a model gets the
*lift*, the log of its clicks over those expected at the overall rate, shrunk towards 0 by `RATE_PRIOR` expected clicks
(a gamma prior on a Poisson rate), and how many were expected. This adds to what a model has learned from an ad's
content, which says nothing yet about new ads and is weeks old for others.
"""

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Singles
from scoring.catalogue import Catalogue
from scoring.events import Events, Source
from scoring.examination import SLOTS_MAX, assumed
from scoring.ids import MISSING, IdMap, id64
from scoring.runs import within
from scoring.tones import TONES, TONES_DIM

Counts = npt.NDArray[np.float64]
Slots = npt.NDArray[np.int64]

TONED = 4
"""Where the numbers of `scoring.tones` begin."""
RATES = ("ad_lift", "log_ad_expected", "brand_lift", "log_brand_expected", *TONES)
RATES_DIM = len(RATES)
RATE_PRIOR = 8.0
"""Expected clicks that a lift of 0 counts for."""
EXPECTED_MAX = 1_000.0
"""Expected clicks are counted up to here, to tell how far a rate can be trusted: models know no larger number."""
_LOOKED_AT = assumed(SLOTS_MAX)
_NO_BRAND = id64("")


def counts_of(events: Events, applied: Bools, clicked: Bools) -> Counts:
    """What each of ``events [E]`` counts: shown and clicked, ``[E, 2]`` in [0, 1].

    ``applied [E]``: which were; ``clicked [E]``: which of them are first to click an impression (`scoring.answers`).
    An impression without a known place is not counted: nobody knows whether it could have been clicked.
    """
    told = applied & (events["surface"] > 0)
    shown = told & (events["source"] == Source.IMPRESSION)
    looked_at = np.where(events["slot"] >= 0, _LOOKED_AT[np.minimum(events["slot"], SLOTS_MAX - 1)], 1.0)
    return np.column_stack([shown * looked_at, told & clicked])


class RateTable:
    """Counts (shown, clicked) of ads by their slot in a catalogue, of brands, and of everything. 36 bytes an ad.

    Of brands it holds at most two an ad: those that no ad has any more are let go before there are more.
    """

    def __init__(self) -> None:
        self.ads: Counts = np.zeros((0, 2))
        self.total: Counts = np.zeros(2)
        self._ids = self._brand_ids = np.zeros(0, dtype=np.uint64)
        self._brand = np.zeros(0, dtype=np.int32)
        self._brands, self._of_brands = _no_brands()
        self._tone: Singles = np.zeros((0, TONES_DIM), dtype=np.float32)
        self._version = -1

    def follow(self, catalogue: Catalogue) -> Slots:
        """Make room for new ads, and return their slots; ads whose brand has changed count for the new one.

        What an ad has counted whose slot is now another's counts no more.
        """
        self._tone = catalogue.tone
        known, now = len(self.ads), len(catalogue)
        if self._version == catalogue.version:
            return np.arange(0)
        self._version = catalogue.version
        taken = np.flatnonzero(catalogue.ad[:known] != self._ids)
        self.set(taken, np.zeros((len(taken), 2)))
        changed = np.flatnonzero(catalogue.brand[:known] != self._brand_ids)
        self._add_to_brands(changed, -self.ads[changed])
        self._ids, self._brand_ids = catalogue.ad.copy(), catalogue.brand.copy()
        more = np.arange(known, now)
        self.ads = np.append(self.ads, np.zeros((len(more), 2)), axis=0)
        self._brand = np.append(self._brand, np.zeros(len(more), dtype=np.int32))
        moved = np.append(changed, more)
        self._brand[moved] = self._places(self._brand_ids[moved])
        self._add_to_brands(changed, self.ads[changed])
        if len(self._of_brands) > 2 * now + 1:
            self._regroup()
        return np.append(taken, more)

    def _regroup(self) -> None:
        """Count for brands of today alone."""
        self._brands, self._of_brands = _no_brands()
        self._brand = self._places(self._brand_ids).astype(np.int32)
        self._add_to_brands(np.arange(len(self.ads)), self.ads)

    def _places(self, brands: Ids) -> Slots:
        for brand in np.unique(brands[self._brands.get(brands) == MISSING]).tolist():
            self._brands.set(brand, len(self._brands))
        more = len(self._brands) - len(self._of_brands)
        self._of_brands = np.append(self._of_brands, np.zeros((more, 2)), axis=0)
        return self._brands.get(brands)

    def _add_to_brands(self, slots: Slots, counts: Counts) -> None:
        _add(self._of_brands, self._brand[slots], counts)
        self._of_brands[0] = 0  # having no brand is none

    def add(self, slots: Slots, counts: Counts) -> None:
        """Add ``counts [E, 2]`` to ads in ``slots [E]``, repeated ones too."""
        _add(self.ads, slots, counts)
        self._add_to_brands(slots, counts)
        self.total += counts.sum(axis=0)

    def set(self, slots: Slots, counts: Counts) -> None:
        """Let ads in ``slots [N]``, each named once, have ``counts [N, 2]``."""
        self.add(slots, counts - self.ads[slots])

    def at(self, slots: Slots) -> Singles:
        """What is told of ads in ``slots``, of any shape: `RATES`, ``[…, RATES_DIM]``."""
        if not len(self.ads):
            return np.zeros((*slots.shape, RATES_DIM), dtype=np.float32)
        brand = self._brand.take(slots)
        counted = self.ads.take(slots, axis=0), self._of_brands.take(brand, axis=0), self.total
        return _told(*counted, self._tone.take(slots, axis=0))

    def running(self, slots: Slots, counts: Counts) -> Singles:
        """What is told of its ad just before each of E events, in order, ``[E, RATES_DIM]``; adds ``counts [E, 2]``.

        Ads that the catalogue does not know, `MISSING` in ``slots [E]``, have zeros and are not counted.
        """
        out = np.zeros((len(slots), RATES_DIM), dtype=np.float32)
        known = np.flatnonzero(slots != MISSING)
        slots, counts = slots[known], counts[known]
        brand = self._brand[slots]
        ads = self.ads[slots] + _before(slots, counts)
        brands = self._of_brands[brand] + _before(brand, counts * (brand > 0)[:, None])
        out[known] = _told(ads, brands, self.total + counts.cumsum(axis=0) - counts, self._tone[slots])
        self.add(slots, counts)
        return out


def _no_brands() -> tuple[IdMap, Counts]:
    """Where brands have their counts, and these: having none is a brand, too."""
    places = IdMap()
    places.set(_NO_BRAND, 0)
    return places, np.zeros((1, 2))


def _add(to: Counts, places: npt.NDArray[np.integer], counts: Counts) -> None:
    """Add ``counts [E, 2]`` at ``places [E]`` of ``to [N, 2]``; a line of numbers takes numpy a sixth of the time."""
    np.add.at(to.reshape(-1), np.concatenate([2 * places, 2 * places + 1]), counts.T.ravel())


def _before(keys: npt.NDArray[np.integer], counts: Counts) -> Counts:
    """What earlier events of the same key have counted, ``[E, 2]``."""
    order = np.argsort(keys, kind="stable")
    run = counts[order].cumsum(axis=0) - counts[order]
    out = np.empty_like(run)
    out[order] = within(run, keys[order])
    return out


def _told(ads: Counts, brands: Counts, total: Counts, tone: Singles) -> Singles:
    """`RATES` of counts ``[…, 2]``, in half precision: a receipt keeps them of every candidate."""
    rate = (total[..., 1] + 1) / (total[..., 0] + 10)
    out = np.empty((*ads.shape[:-1], RATES_DIM), dtype=np.float16)
    for column, counts in ((0, ads), (2, brands)):
        expected = counts[..., 0] * rate
        lifted = ((counts[..., 1] + RATE_PRIOR) / (expected + RATE_PRIOR)).astype(np.float32)
        much = np.minimum(expected, EXPECTED_MAX).astype(np.float32)
        out[..., column], out[..., column + 1] = np.log(lifted), np.log1p(much) / 5
    out[..., TONED:] = tone
    return out.astype(np.float32)
