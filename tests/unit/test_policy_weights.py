"""What a logged placement weighs for another policy, and what a model says of it, as computed by hand."""

import numpy as np
import pytest
from msgspec.structs import replace

from scoring.market import Fate
from scoring.offpolicy import Logged
from streams.choices import Choices
from streams.wire import Decision, Placement, Slot, encode_json
from tests.unit.test_choices import _click, _decision

PCTR = np.array([0.3, 0.1, 0.2, 0.05, 0.9], dtype=np.float32)
WORTH = np.array([0.3, 0.4, 0.2, 0.05, 0.9], dtype=np.float32)
CHOSEN, PROPENSITIES = (1, 2), (0.5, 0.25)
FATES = [Fate.OUTBID, Fate.WON, Fate.WON + 1, Fate.KEPT_APART, Fate.BLOCKED]
BIDS = np.array([1, 4, 1, 1, 1]) * 1_000_000
"""Those with which ``WORTH`` is the worth of ``PCTR``."""


def receipt(bids: np.ndarray, worth: bytes) -> Decision:
    """A placement of two of five candidates, of whom the last was shut out and the fourth by a slot alone."""
    slots = tuple(
        Slot(slot=at, ad_id=f"ad-{place}", campaign_id="c", pctr=0.1, ecpm_micros=1, price_micros=1, propensity=chance)
        for at, (place, chance) in enumerate(zip(CHOSEN, PROPENSITIES, strict=True))
    )
    placement = Placement(
        placement_id="p", user_id="u", time_ms=1, valid_until_ms=2, arm="engine", model="m", slots=slots
    )
    return replace(
        _decision(1, 1.0)[0], placement_id="p", placement=encode_json(placement), chosen=CHOSEN,
        propensities=PROPENSITIES, candidates=np.arange(5, dtype=np.uint64).tobytes(), revisions=bytes(40),
        lifts=bytes(20),
        pctr=PCTR.tobytes(), bids_micros=bids.tobytes(), worth=worth, fates=np.array(FATES, dtype=np.uint8).tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bids", "worth"), [(BIDS, b""), (np.ones_like(BIDS), WORTH.tobytes())], ids=["by the bids", "as it is told"]
)
def test_a_slot_weighs_what_the_policy_would_draw_over_what_was_drawn_in_it_and_those_above(
    bids: np.ndarray, worth: bytes
) -> None:
    found = Choices(0.5, slots=2)
    found.decided([encode_json(receipt(bids, worth))])
    found.clicked([_click("p", "ad-2")])

    first, second = found.logged()

    drawn = WORTH[:4].astype(float) ** 2  # at a temperature of a half; whom a slot alone shut out might have been drawn
    chances = drawn / drawn.sum()
    of_first = chances[1] / PROPENSITIES[0]
    of_second = of_first * drawn[2] / (drawn.sum() - drawn[1]) / PROPENSITIES[1]
    assert first.weight == pytest.approx([of_first])
    assert second.weight == pytest.approx([of_second])
    assert (first.reward.tolist(), second.reward.tolist()) == ([0.0], [1.0])
    assert isinstance(first, Logged)
    assert first.model_chosen == pytest.approx([0.1])
    assert first.model_policy == pytest.approx([chances @ PCTR[:4]])
