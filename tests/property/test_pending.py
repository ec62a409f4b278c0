"""What waits for its outcome: a list in the order of arrival, of which the oldest leaves, with a number for each."""

from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from scoring.pending import DUE, KEY, NEVER_MS, OPEN, PENDING, Pending, Row, keys_of
from tests.builders import START_MS

ROOM = 5
STEPS = st.lists(st.tuples(st.sampled_from(["push", "push", "ask", "pop", "answer"]), st.integers(0, 7)), max_size=60)


def row_of(key: int, due_ms: int) -> Row:
    row = np.zeros((), dtype=PENDING)
    row["key"], row["due_ms"], row["open"] = key, due_ms, 1
    out: Row = row.item()
    return out


class Listed:
    """The queue as a list of [key, due, open] that nothing ever leaves, and two places in it."""

    def __init__(self) -> None:
        self.all: list[list[int]] = []
        self.head = self.asked = 0

    def due_ms(self, place: int) -> int:
        return self.all[place][1] if place < len(self.all) else NEVER_MS

    def waiting(self) -> dict[int, int]:
        return {self.all[at][0]: at for at in range(self.head, len(self.all)) if self.all[at][2]}


def told(row: Row) -> list[Any]:
    return [row[KEY], row[DUE], row[OPEN]]


def take(queue: Pending, listed: Listed, what: str, key: int) -> None:
    """One step of both, which give the same."""
    waiting = listed.waiting()
    assert [queue.holds(key) for key in range(8)] == [key in waiting for key in range(8)]
    if what == "push" and not queue.full and key not in waiting:
        due_ms = START_MS + 10 * len(listed.all)
        assert queue.push(row_of(key, due_ms)) == len(listed.all)
        listed.all.append([key, due_ms, 1])
    elif what == "ask" and listed.asked < len(listed.all):
        number, row = queue.ask()
        assert (number, told(row)) == (listed.asked, listed.all[listed.asked])
        listed.asked += 1
    elif what == "pop" and len(queue):
        assert told(queue.pop()) == listed.all[listed.head]
        listed.head += 1
        listed.asked = max(listed.asked, listed.head)
    elif what == "answer":
        found = queue.answer(key)
        assert (found and (found[0], told(found[1]))) == (
            (waiting[key], [*listed.all[waiting[key]]]) if key in waiting else None
        )
        if key in waiting:
            listed.all[waiting[key]][2] = 0


@example([("push", 1), ("answer", 1), ("push", 1), ("pop", 0), ("answer", 1)], 60)
@example([("push", 1), ("push", 2), ("pop", 0), ("push", 3), ("push", 4), ("answer", 4)], 5)
@given(STEPS, st.integers(1, 60))
def test_the_queue_is_a_list_whose_oldest_leaves_and_a_restored_one_goes_on_as_it_was(
    steps: list[tuple[str, int]], every: int
) -> None:
    queue, listed = Pending(ROOM), Listed()
    for at, (what, key) in enumerate(steps):
        if at % every == 0:
            kept, queue = queue, Pending(ROOM)
            queue.restore(kept.head, kept.between(kept.head, kept.tail), kept.asked)
        take(queue, listed, what, key)
        assert (queue.head, queue.asked, queue.tail) == (listed.head, listed.asked, len(listed.all))
        assert (queue.due_ms, queue.asked_due_ms) == (listed.due_ms(listed.head), listed.due_ms(listed.asked))
        assert queue.full == (len(listed.all) - listed.head == ROOM)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(1, 5_000))
def test_an_impression_is_found_by_any_moment_of_its_second_and_by_no_other(shown: int, named: int, off: int) -> None:
    who, ad = np.array([7], dtype=np.uint64), np.array([8], dtype=np.uint64)
    second_ms = np.array([START_MS // 1_000 * 1_000])

    key = keys_of(who, ad, second_ms + shown)

    assert keys_of(who, ad, second_ms + named) == key
    for other in (
        (who, ad, second_ms + 1_000 * off),
        (who, ad, second_ms - off),
        (ad, who, second_ms),
        (who, who, second_ms),
    ):
        assert keys_of(*other) != key


def test_a_queue_has_room_for_as_many_as_it_may_hold_and_takes_it_as_they_come() -> None:
    queue, small, gone = Pending(3_000), Pending(ROOM), 5_000
    for key in range(gone):  # so that the records are numbered beyond any room
        queue.push(row_of(key, START_MS))
        assert queue.pop()[KEY] == key
    room = []
    for key in range(3_000):
        queue.push(row_of(key, START_MS))
        room.append(len(queue._rows))
    assert sorted(set(room)) == [1_024, 2_048, 3_000]
    assert (queue.full, len(small._rows)) == (True, ROOM)
    assert queue.tail == 3_000 + gone
    assert [queue.pop()[KEY] for _ in range(3_000)] == list(range(3_000))


def test_a_queue_that_is_restored_asks_for_none_that_it_does_not_hold() -> None:
    rows = np.zeros(3, dtype=PENDING)
    rows["key"], rows["due_ms"], rows["open"] = [1, 2, 3], [10, 20, 30], 1
    for asked, of_head, due_ms in ((0, 7, 10), (8, 8, 20), (99, 10, NEVER_MS)):
        queue = Pending(ROOM)
        queue.restore(7, rows, asked)
        assert (queue.asked, queue.asked_due_ms, queue.due_ms) == (of_head, due_ms, 10)
