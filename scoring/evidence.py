"""How well an attention model did: its outcomes, each predicted before it was learned. Loads no model."""

import math
from dataclasses import dataclass

SURE = 1e-7
"""Chances nearer to 0 or 1 than this are clipped in a log loss."""


def log_loss(clicked: int, chance: float) -> float:
    """Log loss of a predicted chance of a click: -log of the probability that it gave to the outcome."""
    chance = min(max(chance, SURE), 1 - SURE)
    return -math.log(chance if clicked else 1 - chance)


def calibration(clicks: float, predicted: float) -> float:
    """Clicks over predicted clicks, in every report: 1 is right on average, above 1 too few were predicted.

    NaN where none were.
    """
    return clicks / predicted if predicted else math.nan


@dataclass(slots=True)
class Evidence:
    """Outcomes of impressions that a model scored, live or as a shadow: each was predicted before it was learned.

    ``predicted``, ``log_loss``: sums of its chances and of their log losses. ``beside``: how many of them it scored as
    a shadow that the click layer knew well enough (`Learner.beside`). Over these, ``beside_log_loss`` sums its log
    losses, ``live_log_loss`` those of the live model, and ``gain_squares`` the squares of its gains; 0 where not kept.
    """

    outcomes: int = 0
    clicks: int = 0
    predicted: float = 0.0
    log_loss: float = 0.0
    beside: int = 0
    beside_log_loss: float = 0.0
    live_log_loss: float = 0.0
    gain_squares: float = 0.0

    def add(self, clicked: int, chance: float) -> float:
        """Take an outcome; returns the log loss of the chance."""
        cost = log_loss(clicked, chance)
        self.outcomes += 1
        self.clicks += clicked
        self.predicted += chance
        self.log_loss += cost
        return cost

    def add_beside(self, clicked: int, chance: float, live: float) -> None:
        """Compare its chance of an outcome, which is taken already, with the ``live`` model's chance."""
        cost, live_cost = log_loss(clicked, chance), log_loss(clicked, live)
        self.beside += 1
        self.beside_log_loss += cost
        self.live_log_loss += live_cost
        self.gain_squares += (live_cost - cost) ** 2

    @property
    def gain(self) -> float | None:
        """How much lower its mean log loss is than the live model's; None where they were never compared."""
        return (self.live_log_loss - self.beside_log_loss) / self.beside if self.beside else None

    @property
    def gain_error(self) -> float | None:
        """The standard error of `gain`, as if impressions were independent; None where they were never compared."""
        if self.gain is None:
            return None
        return math.sqrt(max(self.gain_squares / self.beside - self.gain**2, 0.0) / self.beside)

    def apart(self) -> None:
        """Forget the comparison: another model is live from now on."""
        self.beside, self.beside_log_loss, self.live_log_loss, self.gain_squares = 0, 0.0, 0.0, 0.0

    def join(self, other: "Evidence") -> None:
        """Add all sums of ``other``, for example another lane's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


KNOWN = 1_000
"""Outcomes after which a click layer knows a model. Over the next thousand, log-odds that are off by one or two, or
half or twice as far apart as they should be, cost about 1 % more log loss at most, whether impressions come at one in
ten seconds or at ten a second; after 100 outcomes the worst of them cost 2 to 5 %."""
