"""How much of what an impression is worth its click rate decides."""

import numpy as np

from scoring.value import BidType, of_clicks

TYPES = np.array([BidType.CPC, BidType.CPM, BidType.CPA, BidType.ATTENTION], dtype=np.uint8)


def test_of_a_value_that_goes_by_clicks_and_by_attention_the_bids_part_is_the_click_rates() -> None:
    assert of_clicks(TYPES, np.full(4, 3.0), np.full(4, 12.0)).tolist() == [0.25, 0, 0.25, 0]


def test_of_what_is_worth_nothing_it_decides_nothing() -> None:
    assert of_clicks(TYPES, np.zeros(4), np.zeros(4)).tolist() == [0, 0, 0, 0]
