"""The MineThatData e-mail trial (Hillstrom 2008): three arms drawn at 1/3 each, so every arm's value is known.

A part of it becomes the log of a policy that depends on the customer: a customer is kept with the chance that this
policy would have drawn the arm they got, divided by the policy's largest chance. The whole trial tells the truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scoring.arrays import Floats, Ids, Ints
from scoring.ids import mix64, uniform
from scoring.offpolicy import Estimate, Logged, evaluate, fitted_means
from streams.logs import LogError
from streams.logs.table import rows

FILE = "half_a.csv.gz"
ARMS = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
OUTCOMES = ("visit", "conversion", "spend")
_COLUMNS = ("row", "newbie", "treatment", *OUTCOMES)
FAVOURED = 0.6
"""The logging policy's chance of the arm that it favours: womens' for new customers, mens' for others."""
FOLDS = 5


@dataclass(frozen=True, slots=True)
class ArmValue:
    """An arm's estimates from the biased log, and what the whole trial observed."""

    arm: str
    outcome: str
    observed: float
    estimates: dict[str, Estimate]

    def covered(self, name: str) -> bool:
        """Whether the estimate's interval covers what was observed."""
        return self.estimates[name].low <= self.observed <= self.estimates[name].high


def values(directory: Path) -> Iterator[ArmValue]:
    """Every arm and outcome of the trial in ``directory``. Raises `LogError` for a file that is not it."""
    customers, newbie, arm, outcomes = _read(directory / FILE)
    favoured = np.where(newbie == 1, ARMS.index("Womens E-Mail"), ARMS.index("Mens E-Mail"))
    propensity = np.where(arm == favoured, FAVOURED, (1 - FAVOURED) / 2)
    kept = uniform(customers) < propensity / FAVOURED
    for number, name in enumerate(ARMS):
        if not (arm[kept] == number).any():
            raise LogError(f"{directory / FILE}: nobody got {name} in the log made of it; expected the whole trial")
    fold = (mix64(customers) % np.uint64(FOLDS)).astype(np.int64)
    for outcome, column in zip(OUTCOMES, outcomes.T, strict=True):
        means = fitted_means(arm[kept], column[kept], fold[kept], len(ARMS))
        for number, name in enumerate(ARMS):
            logged = Logged(
                reward=column[kept],
                weight=(arm[kept] == number) / propensity[kept],
                model_chosen=means[fold[kept], arm[kept]],
                model_policy=means[fold[kept], number],
            )
            yield ArmValue(name, outcome, float(column[arm == number].mean()), evaluate(logged))


def _read(file: Path) -> tuple[Ids, Ints, Ints, Floats]:
    """Customers' ids, whether they are new, their arms, and their outcomes ``[N, 3]``."""
    customers, newbie, arm, outcomes = [], [], [], []
    for row in rows(file, _COLUMNS):
        if row.values["treatment"] not in ARMS:
            raise row.error("treatment", f"one of {', '.join(ARMS)}")
        customers.append(row.integer("row", 0, 2**62))
        newbie.append(row.integer("newbie", 0, 1))
        arm.append(ARMS.index(row.values["treatment"]))
        spend = row.number("spend")
        if spend is None:
            raise row.error("spend", "a number from 0")
        outcomes.append([row.integer("visit", 0, 1), row.integer("conversion", 0, 1), spend])
    return np.array(customers, dtype=np.uint64), np.array(newbie), np.array(arm), np.array(outcomes, dtype=float)
