"""Compares the click layers and outcomes that the topics hold with those of the pure core."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scoring.engine import Engine
from scoring.feedback import OUTCOME, Learning
from scoring.ids import id64
from streams.decode import Record
from streams.lanes.clicks import LaneClicks
from streams.outcomes import outcomes_in
from streams.wire import Outcome

PREDICTION_TOLERANCE = 1e-5
"""Tolerance of a probability: states differ by the rounding of float32 sums, and what is learned by little more."""
WEIGHT_TOLERANCE = 1e-3

Showing = tuple[int, int, int]
"""An impression as its outcome names it: 64-bit ids of event and ad, and when it was shown. The event's id alone would
not do: it need not differ between people."""
Told = dict[Showing, tuple[bool, float]]
"""By impression: whether it was clicked, and the predicted probability."""


@dataclass(slots=True)
class Layers:
    """Layers by lane, and the outcomes of all of them in any order.

    ``repeated``: outcomes told more than once; ``unreadable``: records of their topic that are no outcomes.
    """

    lanes: dict[int, LaneClicks] = field(default_factory=dict)
    told: Told = field(default_factory=dict)
    repeated: int = 0
    unreadable: int = 0

    @classmethod
    def kept(cls, parts: Mapping[int, Mapping[bytes, bytes]]) -> "Layers":
        """From the changelog values under each lane's reserved keys."""
        return cls({lane: LaneClicks.restore(None, of) for lane, of in parts.items()})

    def read(self, records: Iterable[Record]) -> None:
        """Take ``records`` of the outcomes topic."""
        outcomes, unreadable = outcomes_in(records)
        self.unreadable += unreadable
        for outcome in outcomes:
            try:
                self.hear(outcome)
            except ValueError:  # its event is not hex
                self.unreadable += 1

    def hear(self, outcome: Outcome) -> None:
        """Take an outcome that the topic told."""
        showing = int(outcome.event, 16), id64(outcome.ad_id), outcome.shown_ms
        self._tell(showing, clicked=outcome.clicked, predicted=outcome.predicted)

    def learned(self, outcomes: npt.NDArray[np.void]) -> None:
        """Take outcomes of `OUTCOME`."""
        assert outcomes.dtype == OUTCOME, f"outcomes are {outcomes.dtype}"
        for *showing, clicked, predicted in outcomes[["event", "ad", "shown_ms", "clicked", "predicted"]].tolist():
            self._tell((showing[0], showing[1], showing[2]), clicked=bool(clicked), predicted=predicted)

    def _tell(self, showing: Showing, *, clicked: bool, predicted: float) -> None:
        self.repeated += showing in self.told
        self.told[showing] = clicked, predicted


@dataclass(frozen=True, slots=True)
class Core:
    """What the pure core needs to do as workers with a click layer do."""

    engine: Engine
    learning: Learning


def differences(expected: Layers, got: Layers) -> list[tuple[str, object, object]]:
    """Each difference: its name, what was expected and what is there. Empty where layers and outcomes agree."""
    out: list[tuple[str, object, object]] = []
    for lane, wanted in expected.lanes.items():
        found = got.lanes.get(lane, LaneClicks())
        for name in ("learned", "clock_ms"):
            pair = getattr(wanted.layer, name), getattr(found.layer, name)
            out += [(f"lane {lane} {name}", *pair)] if pair[0] != pair[1] else []
        apart = float(np.abs(wanted.layer.model.array - found.layer.model.array).max())
        out += [(f"lane {lane} weights apart", 0.0, apart)] if not apart <= WEIGHT_TOLERANCE else []
        waits, waited = _waiting(wanted), _waiting(found)
        if not np.array_equal(waits, waited):
            out.append((f"lane {lane} open", len(waits), len(waited)))
    if expected.told.keys() != got.told.keys():
        out.append(("outcomes", len(expected.told), len(got.told)))
    if got.unreadable:
        out.append(("unreadable outcomes", expected.unreadable, got.unreadable))
    for showing in expected.told.keys() & got.told.keys():
        (clicked, chance), (was_clicked, was_chance) = expected.told[showing], got.told[showing]
        if clicked != was_clicked or not abs(chance - was_chance) <= PREDICTION_TOLERANCE:
            out.append((f"impression {showing[0]:016x}", expected.told[showing], got.told[showing]))
    return out


def prediction_difference(expected: Layers, got: Layers) -> float:
    """The largest difference between predictions of one impression."""
    both = expected.told.keys() & got.told.keys()
    return max((abs(expected.told[showing][1] - got.told[showing][1]) for showing in both), default=0.0)


def _waiting(clicks: LaneClicks) -> npt.NDArray[np.void]:
    pending = clicks.layer.pending
    rows: npt.NDArray[np.void] = pending.between(pending.head, pending.tail)[["key", "due_ms", "open"]]
    return rows
