"""What the click layer has learned about one attention model: how far to believe its log-odds, and how well it did.

Weights over one model's log-odds mean nothing for another's, so each model that scores has its own. A shadow learns
from the outcomes of impressions that it scored beside the live model, and keeps its weights when it is promoted. What
an ad's content does not tell (`scoring.clicks.AdLifts`) is the ad's, whichever model scores.
"""

from dataclasses import dataclass, field

from scoring.clicks import ClickModel
from scoring.evidence import KNOWN, Evidence
from scoring.watch import Alarm, Watch


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
