"""What a lane has learned of ads that the catalogue has no more."""

import numpy as np
import pytest
from structlog.testing import capture_logs

from scoring.catalogue import Catalogue
from scoring.events import Kind, Source
from scoring.ids import id64, id64s
from scoring.inputs import CONTEXT_DIM
from scoring.pool import Pool
from scoring.units import DAY_MS
from streams.feeds.layers import AD, BUCKETS
from streams.lanes.clicks import LaneClicks
from tests.builders import entry
from tests.unit.keeping import LEARNING, SHOP, keep, observe, stream


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_an_ad_that_the_catalogue_has_no_more_is_forgotten_by_the_lanes_next_owner(from_snapshot: bool) -> None:
    events, users = stream(1, 120)
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    gone, without = int(events["ad"][0]), Catalogue()
    without.upsert([entry(f"ad-{at}") for at in range(20) if id64(f"ad-{at}") != gone])
    assert gone in clicks.layer.lifts
    restored = LaneClicks.restore(LEARNING, clicks.parts() if from_snapshot else kept)
    restored.commit(Catalogue())  # a catalogue of nothing is one that is yet to be filled
    assert gone in restored.layer.lifts
    keep(kept, restored.commit(without))
    assert set(restored.layer.lifts) == set(clicks.layer.lifts) - {gone}
    assert set(LaneClicks.restore(LEARNING, kept).layer.lifts) == set(restored.layer.lifts)
    (word,) = [each for each in restored.share(0) if each.key == b"0-%d" % (gone % BUCKETS)]
    assert gone not in np.frombuffer(word.value or b"", dtype=AD)["ad"]


def test_of_a_catalogue_that_is_only_being_filled_no_ad_is_taken_for_withdrawn() -> None:
    events, users = stream(1, 120)
    clicks, kept, begun = LaneClicks(LEARNING), dict[bytes, bytes](), Catalogue()
    keep(kept, observe(clicks, events, users))
    begun.upsert([entry("ad-0")])
    restored = LaneClicks.restore(LEARNING, kept)
    with capture_logs() as said:
        keep(kept, restored.commit(begun))
    assert [each["event"] for each in said] == [
        "most ads that a lane showed last are not on ads; what it has learned of them is kept"
    ]
    assert set(restored.layer.lifts) == set(clicks.layer.lifts)
    assert set(LaneClicks.restore(LEARNING, kept).layer.lifts) == set(clicks.layer.lifts)


@pytest.mark.parametrize("shown", [True, False], ids=["shown last", "nothing open"])
def test_most_ads_that_a_lane_knows_may_be_withdrawn_as_long_as_those_shown_last_are_there(*, shown: bool) -> None:
    """As with ads that live a few days, at each start of a worker: its catalogue has none that was withdrawn before."""
    events, users = stream(1, 120)
    clicks, there = LaneClicks(LEARNING), Catalogue()
    there.upsert(SHOP.entries[:3])
    events["ad"][-40:] = SHOP.ad[np.arange(40) % 3]
    if not shown:  # a window later nobody knows what was shown last
        events["source"][-1], events["kind"][-1] = Source.CLICK, Kind.VIEWED
        events["stream_ms"][-1] += LEARNING.window_ms
    observe(clicks, events, users)
    assert len(clicks.layer.lifts) > 2 * 3
    restored = LaneClicks.restore(LEARNING, clicks.parts())
    with capture_logs() as said:
        restored.commit(there)
    assert said == []
    assert (set(restored.layer.lifts) == set(there.ad.tolist())) == shown


def test_an_ad_in_the_place_of_another_is_told_of_as_after_a_restart_and_inherits_nothing() -> None:
    """Whatever lanes know is kept by ad; what they serve of it is laid out by place."""
    shop, pool, clicks = Catalogue(kept_ms=DAY_MS), Pool(), LaneClicks(LEARNING)
    shop.upsert([entry("gone", brand="one"), entry("stays", brand="two")], [DAY_MS, DAY_MS])
    known = id64s(["gone", "stays"])
    clicks.layer.lifts.put(known, np.array([[90.0, 10.0, 100.0, 90.0], [5.0, 10.0, 50.0, 5.0]]))
    pool.tell_ads(1, known, np.array([[40.0, 10.0, 50.0, 40.0], [1.0, 2.0, 20.0, 1.0]]))
    serve(clicks, shop, pool)
    shop.withdraw(["gone"], [DAY_MS])
    shop.upsert([entry("stays", brand="two")], [3 * DAY_MS])
    shop.upsert([entry("new", brand="one")], [3 * DAY_MS])
    assert shop.names == ["new", "stays"]

    fresh, later = Catalogue(), LaneClicks.restore(LEARNING, clicks.parts())
    fresh.upsert(shop.entries)
    told = serve(clicks, shop, pool)
    assert told == serve(later, fresh, pool)
    assert told[0][0] == 0.0 != told[0][1]


def serve(clicks: LaneClicks, shop: Catalogue, pool: Pool) -> list[list[float]]:
    """What the lane tells of each ad of the catalogue: its lift, what that rests on, and the rates, joined and own."""
    clicks.follow(shop)
    clicks.serve(shop, pool.others(0))
    clicks.layer.lifts.touched.clear()
    places, context = np.arange(len(shop))[None], np.zeros((1, CONTEXT_DIM), dtype=np.float32)
    of = clicks.calibrator.calibration(np.zeros(1, dtype=np.uint64), context, places)
    rates = clicks.calibrator.rated(places), clicks.rates.at(places)
    return [each.ravel().tolist() for each in (of.lift, of.evidence, *rates)]
