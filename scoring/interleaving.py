"""Two rankings of the same candidates in one placement: team draft, and what clicks say of which is preferred.

Slots are filled in rounds of two. A coin tells which ranking picks first; each picks its best among what is left, under
the same rules, and a click is credited to the ranking that picked (Radlinski, Kurup & Joachims 2008, "How does
clickthrough data reflect retrieval quality?"). A person compares both at once, so that a change of the ranking shows
with far fewer clicks than between two groups of people (Chapelle, Joachims, Radlinski & Yue 2012).

The coins follow from the placement's seed: its id and a slot tell which ranking picked.
"""

from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.confidence import ONE_SHARE_MAX, log_e_value, mixture_width, radius
from scoring.ids import mix64, uniform

FIRST, SECOND = 0, 1
"""Who picked: the ranking of the first arm, or that of the second."""
_COIN_SALT = np.uint64(0x636F696E)
CLICKERS_MIN = 30
"""People who clicked, before anything is said: the interval is asymptotic."""
EACH_MIN = 20
"""People among them who must have clicked a pick of each ranking before the variance is trusted. Where nearly all
prefer one, the variance comes from the few who do not: with only 10 or 5 of them, who click five times each on average,
9 and 15 % of intervals missed the truth at some moment; with 20, 4.4 %. Where there are fewer, the interval is computed
as if there were that many, the missing ones clicking as often as the mean: so a ranking that loses outright is found
out, and by how much at least. This holds where the few click like the others. Of 600 people of whom 1 % prefer the
first ranking and click 20 times, the others once, 19 % of intervals missed the truth; where 2 % click 60 times, 40 %.
Before such people come, nothing tells of them."""
FIRST_PLAN = 20.0
"""The interval is narrowest where this many times the information of the first look is reached."""


def picks(seeds: Ids, slots: int) -> Bools:
    """Whether the second ranking picks for each slot, ``[B, slots]``, of placements with ``seeds [B]``."""
    rounds = np.arange((slots + 1) // 2, dtype=np.uint64)
    coins = uniform(mix64(seeds[:, None] ^ (_COIN_SALT + rounds))) < 0.5
    return np.stack([coins, ~coins], axis=2).reshape(len(seeds), -1)[:, :slots]


@dataclass(frozen=True, slots=True)
class Preference:
    """What clicks say. ``value``: the second ranking's share of them minus the first's, -1 to 1; its interval
    ``low`` to ``high`` holds at all times at once. ``p_value``: for the hypothesis of no preference, always valid.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Score:
    """A moment of a duel: people who were shown both, clicks on the picks of either, and what these say.

    ``heaviest``: where one person made more than `ONE_SHARE_MAX` of the clicks, so that they say nothing, that share.
    """

    people: int
    clicks: tuple[float, float]
    preference: Preference | None
    heaviest: float | None = None


@dataclass
class Duel:
    """Clicks credited to each ranking, person by person: ``credit [U, 2]``; ``shown [U]``: who has seen both.

    ``alpha``: the chance that the interval is ever wrong.
    """

    alpha: float = 0.05
    credit: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    shown: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    width: float | None = None
    evidence: float = 0.0

    def show(self, person: int) -> None:
        """The person, by their place, was shown an interleaved placement."""
        if person >= len(self.shown):
            more = max(person + 1, 2 * len(self.shown)) - len(self.shown)
            self.credit = np.concatenate([self.credit, np.zeros((more, 2))])
            self.shown = np.concatenate([self.shown, np.zeros(more, dtype=np.bool_)])
        self.shown[person] = True

    def take(self, person: int, side: int) -> None:
        """Take a person's click on what ``side`` had picked; they were shown it."""
        self.credit[person, side] += 1

    def forget(self, people: Ints) -> None:
        """Let people, by their places, leave, as if they had never come."""
        held = people[people < len(self.shown)]
        self.credit[held], self.shown[held] = 0, False

    def score(self) -> Score:
        """What is counted and known now, as `look` tells it."""
        first, second = self.credit.sum(axis=0).tolist()
        heaviest = self._heaviest() if self._tell() else 0.0
        decided = heaviest if heaviest > ONE_SHARE_MAX else None
        return Score(int(self.shown.sum()), (first, second), self.look(), decided)

    def _tell(self) -> bool:
        """Whether enough people have clicked."""
        return bool(self.credit.any(axis=1).sum() >= CLICKERS_MIN)

    def _heaviest(self) -> float:
        """Largest share of the clicks that one person made."""
        return float(self.credit.sum(axis=1).max() / self.credit.sum())

    def look(self) -> Preference | None:
        """What is known now; None while too few have clicked, or one person made most of the clicks.

        Looking remembers the strongest evidence yet. The unit is the person: one person's clicks are correlated.
        """
        if not self._tell() or self._heaviest() > ONE_SHARE_MAX:
            return None
        credit = self.credit[self.credit.any(axis=1)]
        missing = np.maximum(EACH_MIN - (credit > 0).sum(axis=0), 0)
        others = np.repeat(np.eye(2) * credit.sum(axis=1).mean(), missing, axis=0)
        value, _ = _lead(credit)
        careful, variance = _lead(np.concatenate([credit, others]))
        if not variance > 0:
            return None  # everybody divides their clicks alike
        if self.width is None:
            self.width = mixture_width(FIRST_PLAN / variance, self.alpha)
        self.evidence = max(self.evidence, log_e_value(careful, variance, self.width))
        reach = radius(variance, self.width, self.alpha)
        low, high = max(min(value, careful) - reach, -1.0), min(max(value, careful) + reach, 1.0)
        return Preference(value, low, high, float(np.exp(-self.evidence)))


def _lead(credit: Floats) -> tuple[float, float]:
    """The second ranking's lead among clicks ``[U, 2]``, a ratio of sums, and the variance of its linearised form."""
    clicks, won = credit.sum(axis=1), credit[:, SECOND] - credit[:, FIRST]
    value = float(won.sum() / clicks.sum())
    linear = (won - value * clicks) / clicks.mean()
    return value, float((linear**2).sum() / (len(linear) - 1) / len(linear))
