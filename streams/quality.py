"""How good the click predictions have been lately, from the newest outcomes of impressions, in bounded arrays.

Every figure is progressive: each impression was predicted before its outcome was known. Drift is detected by ADWIN, as
in a lane (`scoring.watch`), on the residual of each outcome, clicked − predicted. Means of several residuals would
hide changes: they spread too little for ADWIN's bound, which assumes a spread over all of [0, 1]. ADWIN's memory grows
with the logarithm of the outcomes since the last change: 2.7 KB for four million.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ints
from scoring.evidence import calibration
from scoring.watch import Adwin

KEPT = 20_000
"""Outcomes kept: 240 KB. At a click rate of 2 %, its standard error is a twentieth of it."""
HELD_MAX = 20_000
"""Most outcomes of a lane held back: ten minutes of clicks at 33 a second or, after a rest, all that was shown in that
time. Beyond it, the oldest are counted early."""
LEAST = 1_000
"""Fewest outcomes that figures are made from."""


class Settled:
    """Holds early clicks back, so that they are counted together with the non-clicks that were shown with them.

    For readers of the outcomes topic. A click is told when it comes, a non-click when its window ends, minutes later.
    Counting both as they come would count too many clicks: in a shop that has just opened, nothing else. So a click is
    counted when its window has ended, like that of a non-click shown with it. Impressions shown before the first
    outcome heard of a lane are left out: some of their clicks may have been told before.
    """

    def __init__(self, *, cut: bool = False) -> None:
        """``cut``: a read may end amid the outcomes that a lane told at one moment, thousands of non-clicks after a
        rest. So outcomes of the newest moment wait for the next one, and so do clicks whose windows have ended since
        the moment before it; else clicks would come first, and their non-clicks after them.
        """
        self._cut = cut
        self._early: dict[int, npt.NDArray[Any]] = {}
        self._since_ms: dict[int, int] = {}
        self._clock_ms: dict[int, int] = {}
        self._whole_ms: dict[int, int] = {}

    def take(self, lane: int, outcomes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Take ``outcomes [N]`` of a lane, in its order; return those to be counted, held-back ones among them.

        They have ``shown_ms``, ``known_ms``, ``ends_ms`` and ``clicked``. They come back in the order in which windows
        end, then of showing. So clicks stand among what was shown with them: in a row they would look like drift.
        """
        if not len(outcomes):
            return outcomes
        since_ms = self._since_ms.setdefault(lane, int(outcomes["known_ms"][0]))
        whole_ms = self._whole_until(lane, outcomes["known_ms"])
        known = outcomes[outcomes["shown_ms"] >= since_ms]
        if lane in self._early:
            known = np.concatenate([self._early[lane], known])
        known = known[np.lexsort((known["shown_ms"], known["ends_ms"]))]  # so that a surplus leaves in this order, too
        waits = (known["known_ms"] > whole_ms) | (known["clicked"] != 0) & (known["ends_ms"] > whole_ms)
        early = np.flatnonzero(waits)[-HELD_MAX:]
        self._early[lane] = known[early]
        return np.delete(known, early)

    def _whole_until(self, lane: int, known_ms: Ints) -> int:
        """The moment up to which ``lane`` has been heard whole: its newest one, or the one before if reads are cut."""
        before_ms = self._clock_ms.get(lane, 0)
        clock_ms = self._clock_ms[lane] = int(known_ms.max(initial=before_ms))
        if not self._cut:
            return clock_ms
        if clock_ms > before_ms:
            self._whole_ms[lane] = int(known_ms[known_ms < clock_ms].max(initial=before_ms))
        return self._whole_ms.get(lane, 0)

    def begin_anew(self, lane: int) -> None:
        """Forget ``lane``: outcomes of it were skipped, clicks among them, whose non-clicks are still to come."""
        for held in (self._early, self._since_ms, self._clock_ms, self._whole_ms):
            held.pop(lane, None)


class Quality:
    """The last `KEPT` outcomes of a worker's lanes."""

    def __init__(self) -> None:
        self._predicted = np.zeros(KEPT, dtype=np.float64)
        self._clicked = np.zeros(KEPT, dtype=np.bool_)
        self._seen = self._ranked = 0
        self._adwin = Adwin()
        self.drifts = 0
        """How often the residual's mean has changed."""

    def observe(self, outcomes: npt.NDArray[Any]) -> None:
        """Take in ``outcomes [N]`` of `scoring.feedback.JUDGED`, oldest first."""
        latest = outcomes[-KEPT:]
        places = (self._seen + np.arange(len(latest))) % KEPT
        self._predicted[places] = latest["predicted"]
        self._clicked[places] = latest["clicked"] != 0
        self._seen += len(latest)

    def watch(self, outcomes: npt.NDArray[Any]) -> None:
        """Look for drift in ``outcomes [N]`` of `scoring.feedback.JUDGED`. Clicks must stand among the non-clicks shown
        with them: if one of the two came first, the detector would take that for a change.
        """
        self.drifts += sum(map(self._adwin.drifts, (outcomes["clicked"] - outcomes["predicted"]).tolist()))

    def clicks(self) -> tuple[int, float]:
        """Clicks among the kept outcomes, and how many were predicted: what the figures rest on."""
        count = min(self._seen, KEPT)
        return int(self._clicked[:count].sum()), float(self._predicted[:count].sum())

    def figures(self) -> tuple[float, float, float]:
        """Calibration (clicks over predicted clicks), log loss and AUC; NaN before `LEAST` outcomes.

        AUC is the chance that a click was predicted higher than a non-click, ties counting half.
        """
        count = min(self._seen, KEPT)
        predicted, clicked = self._predicted[:count], self._clicked[:count]
        clicks, expected = self.clicks()
        if count < LEAST:
            return math.nan, math.nan, math.nan
        sure = np.clip(predicted, 1e-7, 1 - 1e-7)
        log_loss = -float(np.where(clicked, np.log(sure), np.log1p(-sure)).mean())
        ranks = _ranks(predicted[clicked], predicted[~clicked])
        return calibration(clicks, expected), log_loss, float(ranks.mean()) if len(ranks) else math.nan

    def ranks(self) -> Floats:
        """For each click since the last call, the share of the kept non-clicks that were predicted lower.

        The mean of these over any period is its AUC. For ``n`` clicks in random order its standard error is
        1 / sqrt(12 n), however many outcomes came between. Empty before `LEAST` outcomes.
        """
        count = min(self._seen, KEPT)
        if count < LEAST:
            return np.zeros(0)
        places = np.arange(max(self._ranked, self._seen - KEPT), self._seen) % KEPT
        self._ranked = self._seen
        others = self._predicted[:count][~self._clicked[:count]]
        return _ranks(self._predicted[places][self._clicked[places]], others)


def _ranks(clicks: Floats, others: Floats) -> Floats:
    """The share of ``others`` below each of ``clicks [N]``, ties counting half; nothing where there are no others."""
    if not len(others):
        return np.zeros(0)
    others = np.sort(others)
    return (np.searchsorted(others, clicks, "left") + np.searchsorted(others, clicks, "right")) / (2 * len(others))
