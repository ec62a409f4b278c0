"""What campaigns offer at the moment, as pacing, returns and fairness make it of their bids."""

from dataclasses import dataclass

import numpy as np

from scoring.arrays import Ints, Singles
from scoring.catalogue import Catalogue
from scoring.value import BidType


@dataclass(frozen=True, slots=True)
class Offers:
    """What campaigns offer at the moment, per candidate: ``kept [B, C, 4]``, as receipts keep it."""

    kept: Singles

    @property
    def multiplier(self) -> Singles:
        """Pacing's multiplier of the bid, ``[B, C]``; 0 where the budget is spent."""
        return self.kept[..., 0]

    @property
    def quality(self) -> Singles:
        """A weight in the ranking that no money buys, ``[B, C]``."""
        return self.kept[..., 1]

    @property
    def conversion(self) -> Singles:
        """Purchases per click, ``[B, C]``."""
        return self.kept[..., 2]

    @property
    def viewed_s(self) -> Singles:
        """Seconds of attention per impression, ``[B, C]``."""
        return self.kept[..., 3]


def bids_of(catalogue: Catalogue, ads: Ints, offers: Offers | None) -> Ints:
    """Bids of the ``ads``, catalogue slots of any shape, as their ``offers`` of that shape have them, in micros."""
    own: Ints = catalogue.bid_micros.take(ads)
    return own if offers is None else np.floor(own * offers.multiplier.astype(np.float64)).astype(np.int64)


def bid_for_clicks(catalogue: Catalogue) -> bool:
    """Whether every ad bids for clicks alone."""
    return bool((catalogue.bid_type == BidType.CPC).all() and not catalogue.attention_micros.any())
