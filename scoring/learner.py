"""What the click layer has learned about one attention model: how far to believe its log-odds, and how well it did.

Weights over one model's log-odds mean nothing for another's, so each model that scores has its own. A shadow learns
from the outcomes of impressions that it scored beside the live model, and keeps its weights when it is promoted. What
an ad's content does not tell (`scoring.clicks.AdLifts`) is the ad's, whichever model scores.
"""

import math
from dataclasses import dataclass, field

from scoring.clicks import ClickModel
from scoring.watch import Alarm, Watch

SURE = 1e-7
"""Chances nearer to 0 or 1 than this are clipped in a log loss."""


def log_loss(clicked: int, chance: float) -> float:
    """Log loss of a predicted chance of a click: -log of the probability that it gave to the outcome."""
    chance = min(max(chance, SURE), 1 - SURE)
    return -math.log(chance if clicked else 1 - chance)


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


@dataclass(slots=True)
class Learner:
    """Weights, and the watch over them, for one attention model. ``learned``: outcomes that it has had.

    ``known_ms``: when, by the layer's clock, it had enough of them to be compared with another model; None before.
    """

    model: ClickModel = field(default_factory=ClickModel)
    watch: Watch = field(default_factory=Watch)
    learned: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    known_ms: int | None = None

    def outcome(self, clicked: int, predicted: float, closeness: float) -> list[Alarm]:
        """Take an outcome of what it ranked itself; returns the drifts detected. ``closeness``: see `Watch.outcome`."""
        self.learned += 1
        self.evidence.add(clicked, predicted)
        return self.watch.outcome(self.model, self.learned, clicked, predicted, closeness)

    def beside(self, clicked: int, predicted: float, live: float | None, shown_ms: int, clock_ms: int) -> None:
        """Take an outcome of what it scored as a shadow. ``live``: the live model's chance, None if another one ranked.

        The two are compared where the impression was shown after `KNOWN` outcomes of this model. Before that, one is
        calibrated and the other is not: at a hundred impressions a second, log-odds that are off by one cost a shadow a
        tenth more log loss than the live model over its first 2,000 outcomes.
        """
        self.learned += 1
        self.evidence.add(clicked, predicted)
        if self.known_ms is None:
            if self.learned >= KNOWN:
                self.known_ms = clock_ms
        elif shown_ms > self.known_ms and live is not None:
            self.evidence.add_beside(clicked, predicted, live)
