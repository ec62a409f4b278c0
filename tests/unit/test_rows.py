"""A lane's users as rows: found, made, removed, read back from their bytes, and bounded."""

from typing import Any

import numpy as np
import pytest

from scoring.events import TIME_MS_MAX
from scoring.rows import (
    _LAYOUT_1,
    _LAYOUT_3,
    _LAYOUT_4,
    ANSWER_SHIFT,
    LAYOUT_VERSION,
    PLACES,
    RING_SIZE,
    ROW,
    ROW_BYTES,
    SHOWN_BIT,
    RowError,
    RowStore,
    answered,
    decode_rows,
    packed,
    place_of,
    places_of,
)


def key(number: int) -> bytes:
    return f"user-{number}".encode()


def filled(users: int) -> RowStore:
    store = RowStore()
    for number in range(users):
        store.rows[store.row_of(key(number))]["clicks"] = number
    return store


def test_a_row_has_the_size_that_is_written_down_and_no_hidden_padding() -> None:
    assert ROW_BYTES == 1_539
    fields: Any = ROW.fields
    assert sum(field[0].itemsize for field in fields.values()) == ROW_BYTES
    assert all(
        field[1] % (field[0].base.itemsize if field[0].subdtype else field[0].itemsize) == 0
        for field in fields.values()
    )
    assert ROW["ring_ad"].shape == (RING_SIZE,)


def test_a_new_user_gets_a_row_of_this_layout_with_nothing_applied() -> None:
    store = RowStore()

    row = store.rows[store.row_of(b"user-1")]

    assert row["version"] == LAYOUT_VERSION
    assert row["offset"].tolist() == [-1, -1]
    expected = np.zeros((), dtype=ROW)
    expected["version"], expected["offset"] = LAYOUT_VERSION, -1
    assert row.tobytes() == expected.tobytes()


def test_a_user_keeps_one_row_and_different_users_have_different_ones() -> None:
    store = filled(1_000)

    assert [store.row_of(key(number)) for number in range(1_000)] == [
        store.find(key(number)) for number in range(1_000)
    ]
    assert store.rows["clicks"][[store.find(key(number)) for number in range(1_000)]].tolist() == list(range(1_000))
    assert len(store) == 1_000
    assert b"user-7" in store
    assert store.find(b"nobody") == -1
    assert b"nobody" not in store


def test_growing_keeps_what_rows_hold_and_leaves_few_places_empty() -> None:
    store = filled(20_000)

    assert store.rows["clicks"][:20_000].tolist() == list(range(20_000))
    assert len(store.rows) <= 20_000 * 33 / 32 + 256
    assert not store.rows[20_000:]["version"].any()


def test_a_full_lane_says_which_setting_bounds_it() -> None:
    store = RowStore(rows_max=2)
    store.row_of(b"a")
    store.row_of(b"b")

    with pytest.raises(MemoryError, match=r"2 users.*SALIENCE_ROWS_PER_LANE_MAX"):
        store.row_of(b"c")
    assert store.row_of(b"a") == 0


@pytest.mark.parametrize(
    ("held", "removed", "new"), [(0, 0, 700), (5, 3, 2), (5, 3, 4), (2, 2, 9), (8, 0, 1), (3, 3, 0)]
)
def test_users_added_at_once_have_the_rows_that_they_would_have_one_by_one(held: int, removed: int, new: int) -> None:
    stores = RowStore(rows_max=700), RowStore(rows_max=700)
    for store in stores:
        store.put([key(number) for number in range(held)], np.zeros(held, dtype=ROW))
        for number in range(removed):
            store.remove(key(number))
    users = [f"new-{number}".encode() for number in range(new)]
    expected = [stores[0].row_of(user) for user in users]

    assert stores[1].add(users) == new

    assert stores[1].find_all(users).tolist() == expected
    assert stores[1].users == stores[0].users
    assert stores[1].rows.tobytes() == stores[0].rows.tobytes()


def test_of_users_added_at_once_a_full_lane_takes_the_first() -> None:
    store = RowStore(rows_max=3)
    store.add([b"a", b"b"])
    store.remove(b"a")

    assert store.add([b"c", b"d", b"e"]) == 2
    assert store.find_all([b"b", b"c", b"d", b"e"]).tolist() == [1, 0, 2, -1]
    assert store.users == [b"c", b"b", b"d"]


def test_a_store_that_cannot_grow_is_as_it_was() -> None:
    class Full(RowStore):
        def _grow(self) -> None:
            if self._rows.size:
                raise MemoryError
            super()._grow()

    store = Full()
    store.add([b"a", b"b"])
    store.remove(b"a")

    with pytest.raises(MemoryError):
        store.add([key(number) for number in range(300)])

    assert store.users == [None, b"b"]
    assert [store.row_of(user) for user in (b"c", b"d")] == [0, 2]


def test_a_removed_user_leaves_nothing_and_his_row_is_used_again() -> None:
    store = filled(3)
    row = store.find(key(1))

    assert store.remove(key(1))
    assert not store.remove(key(1))

    assert key(1) not in store
    assert store.users[row] is None
    assert not any(store.rows[row].tobytes())
    assert store.row_of(b"someone else") == row
    assert store.rows[row]["clicks"] == 0
    assert store.rows[row]["offset"].tolist() == [-1, -1]
    assert len(store) == 3


def test_rows_survive_as_bytes() -> None:
    store = filled(5)
    values = [store.rows[store.find(key(number))].tobytes() for number in range(5)]

    rows = decode_rows(values)

    assert rows.tobytes() == store.rows[:5].tobytes()
    assert len(decode_rows([])) == 0


def test_recovered_rows_are_those_that_were_put_and_of_one_user_the_last() -> None:
    rows = np.zeros(4, dtype=ROW)
    rows["version"], rows["clicks"] = LAYOUT_VERSION, [1, 2, 3, 4]
    store = RowStore()

    store.put([b"a", b"b", b"a", b"c"], rows)

    assert {user: int(store.rows[store.find(user)]["clicks"]) for user in (b"a", b"b", b"c")} == {
        b"a": 3,
        b"b": 2,
        b"c": 4,
    }
    store.put([], rows[:0])
    assert len(store) == 3


def test_bytes_of_another_size_are_refused_with_both_sizes() -> None:
    row = filled(1).rows[0].tobytes()

    with pytest.raises(
        RowError, match=r"has 1,538 bytes; the layouts that this version reads have 1,434, 1,494, 1,519, 1,539"
    ):
        decode_rows([row, row[:-1]])


def test_another_layout_is_refused_with_both_versions() -> None:
    rows = filled(2).rows[:2].copy()
    rows["version"][1] = LAYOUT_VERSION + 1

    refusal = rf"layouts \[{LAYOUT_VERSION + 1}\]; expected {LAYOUT_VERSION}"
    with pytest.raises(RowError, match=refusal):
        decode_rows([row.tobytes() for row in rows])
    with pytest.raises(RowError, match=refusal):
        decode_rows([rows[1].tobytes()])


def test_rows_of_former_layouts_are_brought_to_this_one_among_others() -> None:
    first, second = np.zeros(2, dtype=_LAYOUT_1), np.zeros(1, dtype=_LAYOUT_3)
    first["version"], first["clicks"], first["offset"] = 1, [7, 8], [[5, 6], [7, 8]]
    first["ring_ad"][:, -1], first["ring_kind"][:, -1], first["ring_s"][:, -1] = 9, 4, 1_700_000
    second["version"], second["clicks"], second["unshown"] = 2, 9, 3
    second["ring_ad"][0, -3:], second["ring_s"][0, -3:] = [1, 2, 3], [10, 20, 30]
    second["ring_kind"][0, -3:] = [1 | SHOWN_BIT, 4 | SHOWN_BIT, 6]
    third = second.copy()
    third["version"] = 3
    fourth = np.zeros(1, dtype=_LAYOUT_4)
    fourth["version"], fourth["clicks"], fourth["value_micros"], fourth["ring_place"][0, -1] = 4, 6, 11, 5
    now = filled(1).rows[0]

    rows = decode_rows([each.tobytes() for each in (first[0], now, second[0], first[1], third[0], fourth[0])])

    assert rows["version"].tolist() == [LAYOUT_VERSION] * 6
    assert rows["clicks"].tolist() == [7, 0, 9, 8, 9, 6]
    assert (rows["value_micros"][5], rows["ring_place"][5, -1], rows["answered_clicks"].any()) == (11, 5, False)
    assert rows["offset"][[0, 3]].tolist() == [[5, 6], [7, 8]]
    assert rows["ring_kind"][0].tolist() == [0] * (RING_SIZE - 1) + [4 | 4 << ANSWER_SHIFT | SHOWN_BIT]
    assert rows[1].tobytes() == now.tobytes()
    assert rows["unshown"][2] == 3
    kinds = rows["ring_kind"][2]
    assert (kinds >= SHOWN_BIT)[-3:].tolist() == [True, True, False]
    assert answered(kinds).tolist() == [0] * (RING_SIZE - 2) + [4, 6]  # what it does not tell is believed
    assert rows["ring_kind"][4].tolist() == third["ring_kind"][0].tolist()  # which tells answers, and has none
    assert not rows["ring_place"][:5].any()
    assert decode_rows([row.tobytes() for row in rows]).tobytes() == rows.tobytes()


def test_a_place_is_one_of_those_that_a_ring_tells_apart_and_not_said_is_none() -> None:
    places = place_of(np.arange(2**16, dtype=np.uint16))

    assert places[0] == 0
    assert np.unique(places[1:]).tolist() == list(range(1, PLACES + 1))
    assert len(set(places[1 : 1 + PLACES].tolist())) == PLACES


def test_places_survive_two_to_a_byte() -> None:
    places = np.random.default_rng(1).integers(0, PLACES + 1, (7, RING_SIZE)).astype(np.uint8)

    assert packed(places).shape == (7, RING_SIZE // 2)
    assert places_of(packed(places)).tolist() == places.tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seen_next", 12),
        ("interest", np.nan),
        ("interest", np.inf),
        ("interest", 1e10),
        ("time_ms", -1),
        ("time_ms", 2**62),
        ("interest_ms", -(2**63)),
        ("interest_ms", TIME_MS_MAX + 1),
        ("ring_kind", 7),
        ("ring_kind", 3 | 4 << ANSWER_SHIFT),
    ],
)
def test_a_row_that_would_make_the_arithmetic_fail_is_refused_with_the_field(field: str, value: float) -> None:
    rows = filled(3).rows[:3].copy()
    rows[field][(1, *[0] * (rows[field].ndim - 1))] = value

    with pytest.raises(RowError, match=field):
        decode_rows([row.tobytes() for row in rows])


def test_idle_users_are_those_older_than_the_moment_and_no_free_rows() -> None:
    store = filled(4)
    store.rows["time_ms"][:4] = [10, 20, 30, 40]
    store.remove(key(0))

    assert store.idle_users(30) == [key(1)]
    assert store.idle_users(10**15) == [key(1), key(2), key(3)]
    assert store.idle_users(0) == []


def test_a_user_costs_about_his_row() -> None:
    store = filled(20_000)

    assert ROW_BYTES < store.nbytes / 20_000 < ROW_BYTES * 1.15
