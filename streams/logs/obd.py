"""The Open Bandit Dataset's small sample (Saito, Aihara, Matsutani & Narita 2021): a random and a Thompson policy.

The random policy's log estimates what the Thompson policy earns; the Thompson policy's own log shows the truth. Its
chance of an item in a position is taken from the item's share in its log, since propensities are published only for
the items that were chosen.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scoring.arrays import Floats, Ints
from scoring.ids import mix64
from scoring.offpolicy import Estimate, Logged, doubts, evaluate, fitted_means
from streams.logs import LogError
from streams.logs.table import rows

RANDOM, BTS = "random_all.csv.gz", "bts_all.csv.gz"
ITEMS, POSITIONS, FOLDS = 80, 3, 2
_COLUMNS = ("item_id", "position", "click", "propensity_score")


@dataclass(frozen=True, slots=True)
class Policies:
    """What the random policy's log says of the Thompson policy, beside what the Thompson policy earned itself."""

    logged: Logged
    estimates: dict[str, Estimate]
    observed: float
    doubts: list[str]


@dataclass(frozen=True, slots=True)
class _Log:
    item: Ints
    position: Ints
    click: Floats
    propensity: Floats


def random_to_bts(directory: Path) -> Policies:
    """Estimate the Thompson policy from the random one's log. Raises `LogError` for files that are not these."""
    logged, other = _read(directory / RANDOM), _read(directory / BTS)
    if missing := set(range(POSITIONS)) - set(other.position.tolist()):
        raise LogError(f"{directory / BTS} has no choices in position {min(missing) + 1}; expected some in each")
    counts = np.bincount(other.position * ITEMS + other.item, minlength=POSITIONS * ITEMS).reshape(POSITIONS, ITEMS)
    policy = counts / counts.sum(axis=1, keepdims=True)
    fold = (mix64(np.arange(len(logged.item), dtype=np.uint64)) % np.uint64(FOLDS)).astype(np.int64)
    cell = logged.position * ITEMS + logged.item
    means = fitted_means(cell, logged.click, fold, POSITIONS * ITEMS).reshape(FOLDS, POSITIONS, ITEMS)
    choices = Logged(
        reward=logged.click,
        weight=policy[logged.position, logged.item] / logged.propensity,
        model_chosen=means[fold, logged.position, logged.item],
        model_policy=(means[fold, logged.position] * policy[logged.position]).sum(axis=1),
    )
    return Policies(choices, evaluate(choices), float(other.click.mean()), doubts(choices))


def _read(file: Path) -> _Log:
    columns: list[tuple[int, int, int, float]] = []
    for row in rows(file, _COLUMNS):
        propensity = row.number("propensity_score")
        if not propensity or propensity > 1:
            raise row.error("propensity_score", "a chance above 0, at most 1")
        item, position = row.integer("item_id", 0, ITEMS - 1), row.integer("position", 1, POSITIONS) - 1
        columns.append((item, position, row.integer("click", 0, 1), propensity))
    items, positions, clicks, propensities = zip(*columns, strict=True)
    return _Log(np.array(items), np.array(positions), np.array(clicks, dtype=float), np.array(propensities))
