"""What a batch that tells of many people leaves in the ring of each: their own, and all of it."""

import numpy as np

from scoring.events import Kind
from scoring.ids import id64
from scoring.rows import KIND_MASK, SHOWN_BIT, RowStore, answered
from scoring.update import apply
from tests.builders import START_MS, catalogue, click, columns_of, impression


def test_people_who_are_shown_one_ad_in_one_second_each_remember_it_and_nothing_of_one_another() -> None:
    store, people = RowStore(), 5
    shown = [impression(f"user-{n}", "ad-3", START_MS, event_id=f"i{n}") for n in range(people)]
    clicked = click("user-2", "ad-3", START_MS + 5, impression_time_ms=START_MS)
    apply(store, columns_of(store, [*shown, clicked]), catalogue(20))
    rows = store.rows[:people]
    assert rows["ring_ad"][:, -1].tolist() == [id64("ad-3")] * people
    assert np.count_nonzero(rows["ring_ad"]) == people
    kinds = rows["ring_kind"][:, -1]
    assert (kinds & KIND_MASK).tolist() == [Kind.SHOWN, Kind.SHOWN, Kind.CLICKED, Kind.SHOWN, Kind.SHOWN]
    assert (kinds >= SHOWN_BIT).all()
    assert answered(kinds).tolist() == [0, 0, Kind.CLICKED, 0, 0]
