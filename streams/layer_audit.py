"""The click layers that the topics hold, and the outcomes that they told, against those of the pure core."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.engine import Engine
from scoring.feedback import OUTCOME, Learning
from streams.lanes.clicks import LaneClicks
from streams.wire import Outcome

PREDICTION_TOLERANCE = 1e-5
"""Of a chance: states differ by the rounding of float32 sums, and what is learned from them by little more."""
WEIGHT_TOLERANCE = 1e-3

Told = dict[str, tuple[bool, float]]
"""Whether it was clicked, and what was predicted, by the hash of the impression's event id."""


@dataclass(slots=True)
class Layers:
    """Layers by lane, and the outcomes of all of them in any order; ``repeated``: outcomes told more than once."""

    lanes: dict[int, LaneClicks] = field(default_factory=dict)
    told: Told = field(default_factory=dict)
    repeated: int = 0

    @classmethod
    def kept(cls, parts: Mapping[int, Mapping[bytes, bytes]]) -> "Layers":
        """From what stands under the reserved keys of each lane."""
        return cls({lane: LaneClicks.restore(None, of) for lane, of in parts.items()})

    def tell(self, event: str, *, clicked: bool, predicted: float) -> None:
        """Take an outcome."""
        self.repeated += event in self.told
        self.told[event] = clicked, predicted

    def learned(self, outcomes: npt.NDArray[np.void]) -> None:
        """Take outcomes of `OUTCOME`."""
        assert outcomes.dtype == OUTCOME, f"outcomes are {outcomes.dtype}"
        for event, clicked, predicted in outcomes[["event", "clicked", "predicted"]].tolist():
            self.tell(f"{event:016x}", clicked=bool(clicked), predicted=predicted)


@dataclass(frozen=True, slots=True)
class Core:
    """What the pure core needs to do as workers with a click layer do."""

    engine: Engine
    learning: Learning


decode_outcome = msgspec.json.Decoder(Outcome).decode


def differences(expected: Layers, got: Layers) -> list[tuple[str, object, object]]:
    """What differs, what was expected and what is there; nothing where the layers and their outcomes agree."""
    out: list[tuple[str, object, object]] = []
    for lane, wanted in expected.lanes.items():
        found = got.lanes.get(lane, LaneClicks())
        for name in ("learned", "dropped", "clock_ms"):
            pair = getattr(wanted.layer, name), getattr(found.layer, name)
            out += [(f"lane {lane} {name}", *pair)] if pair[0] != pair[1] else []
        apart = float(np.abs(wanted.layer.model.array - found.layer.model.array).max())
        out += [(f"lane {lane} weights apart", 0.0, apart)] if not apart <= WEIGHT_TOLERANCE else []
        waits, waited = _waiting(wanted), _waiting(found)
        if not np.array_equal(waits, waited):
            out.append((f"lane {lane} open", len(waits), len(waited)))
    if expected.told.keys() != got.told.keys():
        out.append(("outcomes", len(expected.told), len(got.told)))
    for event in expected.told.keys() & got.told.keys():
        (clicked, chance), (was_clicked, was_chance) = expected.told[event], got.told[event]
        if clicked != was_clicked or not abs(chance - was_chance) <= PREDICTION_TOLERANCE:
            out.append((f"impression {event}", expected.told[event], got.told[event]))
    return out


def prediction_difference(expected: Layers, got: Layers) -> float:
    """The largest difference between predictions of one impression."""
    both = expected.told.keys() & got.told.keys()
    return max((abs(expected.told[event][1] - got.told[event][1]) for event in both), default=0.0)


def _waiting(clicks: LaneClicks) -> npt.NDArray[np.void]:
    pending = clicks.layer.pending
    rows: npt.NDArray[np.void] = pending.between(pending.head, pending.tail)[["key", "due_ms", "open"]]
    return rows
