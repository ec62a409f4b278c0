"""What it costs that lanes learn separately, and what sharing regains: one click layer against several.

Predictions are served as by workers (`scoring.calibration`): by what was learned up to the slice before. The model's
log-odds are those of one lane, so the cost of counting ads' clicks per lane (`scoring.rates`) is not included.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from onnx_models.learning import Variant, variants
from onnx_models.metrics import Floats
from onnx_models.trial import Trial, logit_of
from scoring.calibration import Calibration, Calibrator, chance_of
from scoring.examination import SLOTS_MAX, over
from scoring.feedback import ClickLayer
from scoring.impressions import Impressions
from scoring.pool import Learned, Pool

SLICE_MS = 60_000
"""Time span that is served and learned at once; a worker's slices are shorter."""


def compare_lanes(trial: Trial, stateful: Floats, lanes: int, seed: int) -> list[Variant]:
    """One lane, ``lanes`` lanes alone, and the same sharing after every slice; ``stateful [E]``: the probabilities."""
    ways = {"one lane": (1, False), f"{lanes} lanes alone": (lanes, False), f"{lanes} lanes sharing": (lanes, True)}
    served = {name: serve(trial, logit_of(stateful), of, share=share) for name, (of, share) in ways.items()}
    return variants(trial, served, seed)


def serve(trial: Trial, logit: Floats, lanes: int, *, share: bool) -> npt.NDArray[np.float64]:
    """Probabilities ``[E]`` as served by ``lanes`` that begin with the stream; the user's 64-bit id gives the lane."""
    stream, pool = trial.stream, Pool()
    events, lane_of = stream.events, (stream.users % np.uint64(lanes)).astype(np.int64)
    of = [_Lane(trial, logit) for _ in range(lanes)]
    out = np.zeros(len(logit))
    time_ms = events["time_ms"]
    # Cut only where there are events: one may be dated years after the rest.
    cuts = (np.flatnonzero(np.diff((time_ms - time_ms[0]) // SLICE_MS)) + 1).tolist()
    for start, end in pairwise([0, *cuts, len(events)]):
        for number, lane in enumerate(of):
            at = np.flatnonzero(lane_of[start:end] == number) + start
            if len(at):
                lane.slice(at, out)
                lane.hear(pool if share else Pool(), number)
    return out


def _looked_at(calibration: Calibration, slots: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Examination probability of each of ``slots [N]``, relative to the first; 1 where it is unknown."""
    if calibration.examined is None:
        return np.ones(len(slots))
    curve = over(calibration.examined, SLOTS_MAX)
    return np.where(slots >= 0, curve[np.minimum(slots, SLOTS_MAX - 1)], 1.0)


class _Lane:
    """A lane's click layer, and the calibrator that serves it."""

    def __init__(self, trial: Trial, logit: Floats) -> None:
        self.trial, self.logit = trial, logit.astype(np.float32)
        self.layer, self.calibrator = ClickLayer(trial.stream.learning), Calibrator()
        self.calibrator.update(self.layer, trial.catalogue, Pool().others(0))

    def slice(self, at: npt.NDArray[np.int64], out: npt.NDArray[np.float64]) -> None:
        """Serve the impressions among the events ``at``, into ``out``; then learn from all of them."""
        stream, test = self.trial.stream, self.trial.stateful
        which = np.searchsorted(stream.place, at)
        shown = np.flatnonzero(stream.place[np.minimum(which, len(stream.place) - 1)] == at)
        examples = which[shown]
        context, slots = test.context[examples], stream.events["slot"][at[shown]]
        if len(examples):
            people, items = stream.users[at[shown]], test.item[examples, None].astype(np.int64)
            calibration = self.calibrator.calibration(people, context, items)
            odds = calibration.log_odds(self.logit[examples, None], context, slots < 0)  # with a slot: an ad we chose
            out[examples] = chance_of(odds)[:, 0] * _looked_at(calibration, slots)
        nobody = np.zeros(len(at), dtype=np.bool_)
        seen = Impressions(shown, self.logit[examples], context)
        self.layer.observe(stream.events[at], stream.users[at], nobody, seen)

    def hear(self, pool: Pool, number: int) -> None:
        """Take what the other lanes have learned, and tell ``pool`` what this one has."""
        layer = self.layer
        self.calibrator.update(layer, self.trial.catalogue, pool.others(number))
        pool.tell(number, Learned.of(layer))
        touched = np.array([*layer.lifts.touched], dtype=np.uint64)
        pool.tell_ads(number, touched, layer.lifts.records(touched.tolist()))  # of the others it has told all
        layer.lifts.touched.clear()
