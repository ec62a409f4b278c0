"""Click layers that former versions kept are read, and go on."""

from dataclasses import replace

import msgspec
import numpy as np
from numpy.lib import recfunctions as structured

from scoring.pending import PENDING
from streams.lanes.clicks import KEY, LaneClicks, person_key
from tests.unit.keeping import LEARNING, keep, observe, state, stream

AT_THE_END = replace(LEARNING, wait_ms=LEARNING.window_ms)
"""How non-clicks were learned then."""

FORMER, SIZE = "dafb9a2dedd950b1", 148
"""The former layout, and how long its records of what is open were."""


def as_formerly(parts: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """``parts`` as they were kept before shadows' chances were."""
    out = dict(parts)
    row = msgspec.msgpack.decode(out[KEY])
    del row["asked"]
    out[KEY] = msgspec.msgpack.encode(row | {"layout": FORMER})
    names = [name for name in PENDING.names or () if name != "shadow_predicted"]
    for key in (key for key in out if b"/open/" in key):
        chunk = msgspec.msgpack.decode(out[key])
        rows = structured.repack_fields(np.frombuffer(chunk["rows"], dtype=PENDING)[names])
        assert rows.itemsize == SIZE
        out[key] = msgspec.msgpack.encode(chunk | {"rows": rows.tobytes(), "layout": 4})
    return out


def test_a_layer_that_did_not_know_of_shadows_is_read_as_one_that_has_met_none() -> None:
    events, users = stream(3, 200)
    clicks, kept = LaneClicks(AT_THE_END), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    read = LaneClicks.restore(AT_THE_END, as_formerly(kept))
    assert state(read) == state(clicks)  # nobody's was told here
    observe(clicks, events[100:], users[100:])
    observe(read, events[100:], users[100:])
    assert state(read) == state(clicks)


def test_what_was_open_in_a_former_layout_is_learned_though_its_wait_is_over() -> None:
    events, users = stream(3, 200)
    clicks, kept = LaneClicks(AT_THE_END), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    read = LaneClicks.restore(LEARNING, as_formerly(kept))
    pending = read.layer.pending
    assert pending.asked == pending.head < pending.tail
    expected = read.layer.lifts.arrays()[1][:, 1].sum()
    observe(read, events[100:101], users[100:101])
    assert pending.asked > pending.head
    assert read.layer.lifts.arrays()[1][:, 1].sum() > expected


def test_a_layer_of_the_former_layout_is_read_and_what_was_open_is_learned_wherever_it_ends() -> None:
    events, users = stream(3, 200)
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    old = as_formerly(kept)
    read = LaneClicks.restore(LEARNING, old)
    pending = read.layer.pending
    rows = pending.between(pending.head, pending.tail)
    assert len(rows) == len(clicks.layer.pending) > 0
    assert np.isnan(rows["shadow_predicted"]).all()
    keep(old, observe(read, events[100:105], users[100:105]))  # chunks of both layouts now
    again = LaneClicks.restore(LEARNING, old)
    assert state(again) == state(read)
    for layer in (again, read):
        observe(layer, events[105:], users[105:])
    assert state(again) == state(read)
    assert read.layer.learned > 100 - len(rows)


def test_a_persons_record_that_does_not_say_since_when_counts_from_the_first() -> None:
    events, users = stream(3, 200)
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    former = {key: value[:16] if key.startswith(person_key(b"")[:-8]) else value for key, value in kept.items()}
    read = LaneClicks.restore(LEARNING, former)
    ids, records = clicks.layer.people.arrays()
    was = read.layer.people.records(ids.tolist())
    assert was[:, :2].tolist() == records[:, :2].tolist()
    assert set(was[:, 2]) == {0.0} < set(records[:, 2])
    for layer in (clicks, read):
        observe(layer, events[100:], users[100:])
    assert read.layer.people.lifts(ids).tolist() == clicks.layer.people.lifts(ids).tolist()


def test_a_layer_still_tells_what_former_versions_do_not_read_it_without() -> None:
    assert msgspec.msgpack.decode(LaneClicks().parts()[KEY])["dropped"] == 0
