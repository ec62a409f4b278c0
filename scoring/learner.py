"""What the click layer has learned of one attention model: how far its log-odds are to be believed, and how it did.

Weights over a model's log-odds mean nothing for another's, so each model that scores has its own; a shadow learns from
what came of the impressions that it scored beside the live model, and does not begin anew where it is promoted. What an
ad has that its content does not tell (`scoring.clicks.AdLifts`) is the ad's, whichever model scores.
"""

import math
from dataclasses import dataclass, field

from scoring.clicks import ClickModel
from scoring.watch import Alarm, Watch

SURE = 1e-7
"""Chances nearer to 0 or 1 count as this in a log loss."""


def log_loss(clicked: int, chance: float) -> float:
    """What a chance of a click costs, once it is known: -log of what it gave to what came."""
    chance = min(max(chance, SURE), 1 - SURE)
    return -math.log(chance if clicked else 1 - chance)


@dataclass(slots=True)
class Evidence:
    """What came of impressions that a model scored, live or beside: each was predicted before it was learned.

    ``predicted``, ``log_loss``: sums of its chances and of what they cost. ``beside`` of them it scored as a shadow of
    which the click layer knew enough (`Learner.beside`): ``beside_log_loss`` are its costs, ``live_log_loss`` those of
    the model that is live, and ``gain_squares`` is the sum of the squares of what it cost less; 0 where it is not kept.
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
        """Take an outcome; what the chance cost."""
        cost = log_loss(clicked, chance)
        self.outcomes += 1
        self.clicks += clicked
        self.predicted += chance
        self.log_loss += cost
        return cost

    def add_beside(self, clicked: int, chance: float, live: float) -> None:
        """Hold its chance of an outcome, which is taken already, against that of the model that was heeded."""
        cost, live_cost = log_loss(clicked, chance), log_loss(clicked, live)
        self.beside += 1
        self.beside_log_loss += cost
        self.live_log_loss += live_cost
        self.gain_squares += (live_cost - cost) ** 2

    @property
    def gain(self) -> float | None:
        """How much lower its log loss is than that of the model it was beside; None where it was beside none."""
        return (self.live_log_loss - self.beside_log_loss) / self.beside if self.beside else None

    @property
    def gain_error(self) -> float | None:
        """The standard error of `gain`, as if impressions were independent; None where it was beside none."""
        if self.gain is None:
            return None
        return math.sqrt(max(self.gain_squares / self.beside - self.gain**2, 0.0) / self.beside)

    def apart(self) -> None:
        """Forget what it was beside: another model is heeded from now on."""
        self.beside, self.beside_log_loss, self.live_log_loss, self.gain_squares = 0, 0.0, 0.0, 0.0

    def join(self, other: "Evidence") -> None:
        """Take all that ``other`` has, as of another lane."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


KNOWN = 1_000
"""Outcomes after which a click layer knows a model. Log-odds that are off by one or two, or half or twice as far apart
as they should be, cost about 1 % more log loss at most over the next thousand, at one impression in ten seconds as at
ten a second; after 100 outcomes the worst of them 2 to 5 %."""


@dataclass(slots=True)
class Learner:
    """Weights, and the watch over them, for one attention model. ``learned``: outcomes that it has had.

    ``known_ms``: when, by the layer's clock, they were enough to hold it against another model; None before that.
    """

    model: ClickModel = field(default_factory=ClickModel)
    watch: Watch = field(default_factory=Watch)
    learned: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    known_ms: int | None = None

    def outcome(self, clicked: int, predicted: float, closeness: float) -> list[Alarm]:
        """Note an outcome of what it scored itself; the drifts that it shows. ``closeness``: see `Watch.outcome`."""
        self.learned += 1
        self.evidence.add(clicked, predicted)
        return self.watch.outcome(self.model, self.learned, clicked, predicted, closeness)

    def beside(self, clicked: int, predicted: float, live: float | None, shown_ms: int, clock_ms: int) -> None:
        """Note an outcome of what it scored as a shadow, and the live model's chance; None where another was heeded.

        The two are held against each other where the impression was shown after `KNOWN` outcomes of this model had
        come. Before that the one is calibrated and the other is not: of a hundred impressions a second, log-odds that
        are off by one cost a shadow a tenth more log loss than what is live over its first 2,000 outcomes.
        """
        self.learned += 1
        self.evidence.add(clicked, predicted)
        if self.known_ms is None:
            if self.learned >= KNOWN:
                self.known_ms = clock_ms
        elif shown_ms > self.known_ms and live is not None:
            self.evidence.add_beside(clicked, predicted, live)
