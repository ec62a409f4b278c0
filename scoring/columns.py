"""What is known of campaigns, advertisers or categories, laid out for every ad of the catalogue."""

import numpy as np

from scoring.arrays import Floats, Ids, Singles
from scoring.catalogue import Catalogue
from scoring.ids import MISSING, places_in


class Column:
    """Values by the id in a column of the catalogue; looked up once, until ids or catalogue change."""

    def __init__(self, name: str, usual: tuple[float, ...]) -> None:
        self._name, self._usual = name, np.array(usual, dtype=np.float32)
        self._ids: Ids = np.zeros(0, dtype=np.uint64)
        self._values = np.zeros((0, len(usual)), dtype=np.float32)
        self._order = self._place = np.zeros(0, dtype=np.int64)
        self._version = -1

    def __len__(self) -> int:
        return len(self._ids)

    def set(self, ids: Ids, values: Floats) -> None:
        """Set ``values [M, …]`` of ``ids [M]``, each there once."""
        self._values = values.astype(np.float32)
        if ids is not self._ids:
            self._ids, self._order, self._version = ids, np.argsort(ids), -1

    def of(self, catalogue: Catalogue) -> Singles:
        """Values of every ad, ``[N, …]``; the usual ones where its id has none."""
        if not len(self):
            return np.broadcast_to(self._usual, (len(catalogue), len(self._usual)))
        if catalogue.version != self._version:
            at = places_in(self._ids[self._order], getattr(catalogue, self._name))
            self._place, self._version = np.where(at == MISSING, MISSING, self._order[at]), catalogue.version
        return np.where((self._place == MISSING)[:, None], self._usual, self._values[self._place])
