"""A click layer whose windows are longer after a restart."""

from dataclasses import replace

import pytest

from scoring.feedback import Learning
from scoring.units import MINUTE_MS
from streams.lanes.clicks import LaneClicks
from tests.unit.keeping import keep, observe, state, stream

SHORT = Learning(window_ms=20 * MINUTE_MS, wait_ms=5 * MINUTE_MS)
LONG = replace(SHORT, window_ms=60 * MINUTE_MS)


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_where_windows_are_longer_from_now_on_what_is_open_waits_as_if_they_had_always_been(
    from_snapshot: bool,
) -> None:
    events, users = stream(3, 90)  # a minute apart: the first short window ends after twenty
    always, clicks, kept = LaneClicks(LONG), LaneClicks(SHORT), dict[bytes, bytes]()
    for start in range(0, len(events), 6):
        cut = slice(start, start + 6)
        if start in {12, 18, 60}:  # twice while what was kept with a short window is open
            clicks = LaneClicks.restore(LONG, clicks.parts() if from_snapshot else kept)
        observe(always, events[cut], users[cut])
        keep(kept, observe(clicks, events[cut], users[cut]))
        assert state(clicks) == state(always) or start < 12  # what is open is due later
    assert clicks.layer.learned > 10


def test_whoever_only_looks_at_what_is_kept_finds_its_windows_as_they_are() -> None:
    events, users = stream(3, 30)
    clicks = LaneClicks(replace(SHORT, window_ms=4 * MINUTE_MS, wait_ms=MINUTE_MS))
    observe(clicks, events, users)
    assert len(clicks.layer.pending)
    found = LaneClicks.restore(None, clicks.parts())
    one, other = (
        each.layer.pending.between(each.layer.pending.head, each.layer.pending.tail) for each in (clicks, found)
    )
    assert one["due_ms"].tolist() == other["due_ms"].tolist()
