"""What a shadow says of people, beside what was decided for them."""

from types import SimpleNamespace

import numpy as np

from scoring.engine import Beside
from scoring.ids import id64
from scoring.ranking import EMPTY_SLOT
from streams.models.beside import Said, beside_of
from streams.wire import Placement, ShadowSlot, Slot
from tests.builders import START_MS

LIVE = [[0.9, 0.9, 0.9], [0.1, 0.2, 0.3], [0.8, 0.8, 0.8], [0.25, 0.5, 0.75]]
"""Of four people and three candidates."""
SHADOW = [[0.2, 0.2, 0.2000004], [0.5, 0.25, 0.0]]
"""Of the second and the last of them."""
CHOSEN = [[0, 1], [2, 0], [1, 2], [1, EMPTY_SLOT]]


def said(beside: Beside | None) -> dict[int, Said]:
    asked = SimpleNamespace(pctr=np.array(LIVE, dtype=np.float32))
    decided = SimpleNamespace(chosen=np.array(CHOSEN))
    return beside_of(SimpleNamespace(beside=beside, asked=asked, decided=decided))


def test_of_those_whom_a_shadow_was_asked_about_both_chances_of_what_was_placed_are_told() -> None:
    found = said(Beside("new-00000001", np.array([1, 3]), np.array(SHADOW, dtype=np.float32)))
    assert found == {
        1: Said("new-00000001", [0.3, 0.1], [0.2, 0.2], 3, 0.066667, 0.1),
        3: Said("new-00000001", [0.5], [0.25], 3, 0.416667, 0.75),
    }
    assert said(None) == {}


def test_a_shadows_words_stand_beside_the_placement_without_saying_whose_it_is() -> None:
    slots = tuple(
        Slot(slot=at, ad_id=ad, campaign_id="c", pctr=0.0, ecpm_micros=0, price_micros=0, propensity=1.0)
        for at, ad in enumerate(("ad-1", "ad-2"))
    )
    placement = Placement(
        placement_id="0-user-7",
        user_id="user-1",
        time_ms=START_MS,
        valid_until_ms=START_MS,
        arm="engine",
        model="old-00000000",
        slots=slots,
    )
    told = Said("new-00000001", [0.3, 0.1], [0.2, 0.4000001], 3, 0.125, 0.25).of(placement)
    assert told.decision == f"{id64('0-user-7'):016x}"
    assert (told.time_ms, told.model, told.shadow) == (START_MS, "old-00000000", "new-00000001")
    assert told.slots == (
        ShadowSlot(ad_id="ad-1", pctr=0.3, shadow_pctr=0.2, difference=-0.1),
        ShadowSlot(ad_id="ad-2", pctr=0.1, shadow_pctr=0.4000001, difference=0.3),
    )
    assert (told.candidates, told.mean_difference, told.largest_difference) == (3, 0.125, 0.25)
