"""What a lane has learned of ads that the catalogue has no more."""

import numpy as np
import pytest

from scoring.catalogue import Catalogue
from scoring.ids import id64
from streams.feeds.layers import AD, BUCKETS
from streams.lanes.clicks import LaneClicks
from tests.builders import entry
from tests.unit.keeping import LEARNING, keep, observe, stream


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
    keep(kept, restored.commit(begun))
    assert set(restored.layer.lifts) == set(clicks.layer.lifts)
    assert set(LaneClicks.restore(LEARNING, kept).layer.lifts) == set(clicks.layer.lifts)
