"""Records to columns: every field where it belongs, and everything that fails set aside with its reason."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scoring.events import EVENT, VIEWED_LONG_MS, Kind, Source
from scoring.ids import id64
from scoring.rows import RowStore
from streams.columns import columns
from streams.decode import Decoded, decode
from streams.privacy.consent import Gate
from tests.builders import START_MS, Record, click, impression, record, records

LATEST_MS = START_MS + 300_000


def decoded(given: Sequence[Record], store: RowStore | None = None, *, misplaced: Collection[bytes] = ()) -> Decoded:
    sources = np.array(
        [Source.CLICK if each.topic == "clicks" else Source.IMPRESSION for each in given], dtype=np.uint8
    )
    return decode(
        given,
        sources,
        RowStore() if store is None else store,
        latest_ms=LATEST_MS,
        belongs_here=lambda key: key not in misplaced,
    )


def reasons(out: Decoded) -> list[tuple[str, str]]:
    return [(error, message) for _, _, error, message in out.dead]


def test_an_impression_becomes_a_row_of_columns() -> None:
    sold: dict[str, Any] = {"placement_id": "0-1-2-3.1-0", "price_micros": 5, "seal": "00000000000000ff"}
    event = impression("user-1", "ad-7", START_MS, event_id="e1", surface="feed", slot=3, **sold)

    (column,) = decoded([record(event, offset=41)]).events

    assert {name: int(column[name]) for name in EVENT.names or ()} == {
        "time_ms": START_MS,
        "stream_ms": START_MS,
        "shown_ms": START_MS,
        "ad": id64("ad-7"),
        "event": id64("e1"),
        "offset": 41,
        "value_micros": 0,
        "viewed_ms": 0,
        "price_micros": 5,
        "seal": 255,
        "placement": id64("0-1-2-3.1-0"),
        "arms": id64("1-0"),
        "row": 0,
        "surface": 1 + id64("feed") % 65_535,
        "slot": 3,
        "source": Source.IMPRESSION,
        "kind": Kind.SHOWN,
        "own": False,
        "answers": False,
    }


@pytest.mark.parametrize("seal", ["", "ff", "-0000000000000ff", "zz000000000000ff", "0x000000000000ff", " f"])
def test_what_is_no_seal_is_none(seal: str) -> None:
    (column,) = decoded([record(impression(placement_id="p", price_micros=5, seal=seal))]).events
    assert int(column["seal"]) == (255 if seal == "ff" else 0)


def test_what_an_event_says_of_experiments_is_read_whatever_comes_with_it() -> None:
    bare = record(click("a", placement_id="0-1-2-3.1-0"))
    sealed = record(click("b", placement_id="0-1-2-4.1-1", price_micros=5, seal="ff"), offset=1)

    for given in ([bare], [bare, sealed]):
        out = decoded(given)
        assert int(out.events["arms"][0]) == id64("1-0")
        assert out.arms[id64("1-0")] == "1-0"
        assert out.events["seal"].tolist() == [0, 255][: len(given)]


@pytest.mark.parametrize(
    ("says", "column", "number"),
    [({"placement_id": "0-1-2-3.1-0"}, "placement", id64("0-1-2-3.1-0")), ({"seal": "ff"}, "seal", 255)],
    ids=["placement", "seal"],
)
def test_what_one_event_says_of_its_price_is_read_beside_another_that_says_nothing(
    says: dict[str, str], column: str, number: int
) -> None:
    out = decoded([record(impression("a", **says)), record(impression("b", event_id="e2"), offset=1)])
    assert int(out.events[column][0]) == number


def test_the_lanes_time_is_the_newest_event_so_far() -> None:
    times_ms = [START_MS, START_MS + 5, START_MS + 2, START_MS + 9]
    given = [record(impression("a", event_id=f"e{ms}", time_ms=ms), offset=at) for at, ms in enumerate(times_ms)]
    assert decoded(given).events["stream_ms"].tolist() == [START_MS, START_MS + 5, START_MS + 5, START_MS + 9]


def test_a_purchase_becomes_a_row_of_columns_as_of_the_impression_it_answers() -> None:
    told: dict[str, Any] = {
        "kind": "purchase",
        "viewed_s": 1.2345,
        "value_micros": 5,
        "impression_time_ms": START_MS - 9,
    }

    (column,) = decoded([record(click("user-1", "ad-7", START_MS, **told), offset=3)]).events

    names = ("time_ms", "shown_ms", "value_micros", "viewed_ms", "surface", "source", "kind", "offset")
    assert [int(column[name]) for name in names] == [
        START_MS,
        START_MS - 9,
        5,
        1_234,
        0,
        Source.CLICK,
        Kind.PURCHASED,
        3,
    ]


@pytest.mark.parametrize(
    ("kind", "viewed_s", "counts_as"),
    [
        ("view", None, Kind.VIEWED),
        ("view", VIEWED_LONG_MS / 1_000 - 0.001, Kind.VIEWED),
        ("view", VIEWED_LONG_MS / 1_000, Kind.VIEWED_LONG),
        ("click", 86_400.0, Kind.CLICKED),
        ("cart", None, Kind.CARTED),
        ("purchase", None, Kind.PURCHASED),
    ],
)
def test_a_view_is_long_from_ten_seconds_and_other_kinds_are_what_they_say(
    kind: str, viewed_s: float | None, counts_as: Kind
) -> None:
    assert columns([click(kind=kind, viewed_s=viewed_s)], [0])["kind"].tolist() == [counts_as]


def test_a_click_that_answers_no_impression_is_remembered_at_its_own_time() -> None:
    assert columns([click(time_ms=START_MS)], [0])["shown_ms"].tolist() == [START_MS]
    assert columns([click(time_ms=START_MS, impression_time_ms=0)], [0])["shown_ms"].tolist() == [0]


def test_the_slot_is_the_impressions_and_none_is_none() -> None:
    assert columns([impression(slot=0), impression(), impression(slot=7), click()], [0] * 4)["slot"].tolist() == [
        0,
        -1,
        7,
        -1,
    ]


def test_what_names_its_impression_answers_it_though_the_two_were_at_one_moment() -> None:
    told = [impression(), click(), click(impression_time_ms=START_MS), click(impression_time_ms=0)]
    assert columns(told, [0] * 4)["answers"].tolist() == [False, False, True, True]
    assert decoded(records(told)).events["answers"].tolist() == [False, False, True, True]


def test_events_keep_their_order_and_users_their_rows() -> None:
    store = RowStore()
    given = records([impression("b"), click("a"), impression("a"), click("b"), click("b")])

    out = decoded(given, store)

    assert [store.users[row] for row in out.events["row"]] == [b"b", b"a", b"a", b"b", b"b"]
    assert out.events["source"].tolist() == [0, 1, 0, 1, 1]
    assert out.events["offset"].tolist() == [0, 0, 1, 1, 2]
    assert len(store) == 2


def test_surfaces_are_told_apart_and_none_is_none() -> None:
    surfaces = columns([click(surface=name) for name in ("feed", "", "search", "feed")], [0] * 4)["surface"].tolist()

    assert surfaces[1] == 0
    assert surfaces[0] == surfaces[3] != surfaces[2]
    assert min(surfaces[0], surfaces[2]) > 0


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", "DecodeError"),
        (b"{", "DecodeError"),
        (b"\xff\xfe", "DecodeError"),
        (b"null", "ValidationError"),
        (b"[]", "ValidationError"),
        (b'{"event_id": "e"}', "ValidationError"),
        (None, "ValidationError"),
    ],
)
def test_a_value_that_is_no_event_is_set_aside_with_its_error(value: bytes | None, error: str) -> None:
    given = record(click(), offset=5, value=value)

    out = decoded([given])

    assert [(dead, stage, name) for dead, stage, name, _ in out.dead] == [(given, "decode", error)]
    assert out.dead[0][3]
    assert len(out.events) == 0


def test_a_record_without_a_value_is_told_as_such_and_not_as_one_that_was_cut_off() -> None:
    (told,) = decoded([record(click(), value=None)]).dead
    assert told[3] == "Expected `object`, got `null`"


def test_a_value_that_is_no_utf8_is_set_aside_and_stops_nothing() -> None:
    good = record(click("a"), offset=1)
    bad = record(click("a"), value=b'{"event_id":"\xff\xfe","user_id":"a","ad_id":"x","time_ms":1}')

    out = decoded([bad, good])

    assert [dead[0] for dead in out.dead] == [bad]
    assert out.events["offset"].tolist() == [1]


def test_an_impression_on_the_topic_of_clicks_is_read_as_what_the_topic_holds() -> None:
    shown = record(impression("a"))
    on_clicks = Record("clicks", 0, 0, shown.timestamp, shown.key, shown.value)

    assert decoded([on_clicks]).events["kind"].tolist() == [Kind.CLICKED]


@pytest.mark.parametrize("key", [None, b"", b"someone-else", b"USER-1"])
def test_a_key_that_is_not_the_user_is_refused_with_the_fix(key: bytes | None) -> None:
    ((error, message),) = reasons(decoded([record(click("user-1"), key=key)]))

    assert error == "ValueError"
    assert ("there is no key" if not key else f"the key has {len(key)} bytes") in message
    assert "expected the user_id, of 6 bytes" in message
    assert "user-1" not in message
    assert "key both topics by user" in message


@pytest.mark.parametrize("user", ["\x00", "\x00erased/anna", "an\nna", "anna\x7f"])
def test_a_user_whose_id_holds_a_control_character_is_refused_and_others_go_on(user: str) -> None:
    out = decoded(records([click(user), click("anna"), click("Ànna\u200b")]))

    ((error, message),) = reasons(out)
    assert error == "ValueError"
    assert message == "the user_id holds a control character; give every user a plain id"
    assert out.events["offset"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (click(time_ms=LATEST_MS + 1), "time_ms"),
        (impression(time_ms=LATEST_MS + 1), "time_ms"),
        (click(time_ms=START_MS, impression_time_ms=LATEST_MS + 1), "impression_time_ms"),
    ],
)
def test_a_time_in_the_future_is_refused_with_both_times(event: Any, field: str) -> None:
    ((error, message),) = reasons(decoded([replace(record(event), timestamp=LATEST_MS)]))

    assert error == "ValueError"
    assert message == f"{field} {LATEST_MS + 1} is in the future (at most {LATEST_MS}); check the producer's clock"


@pytest.mark.parametrize("field", ["time_ms", "impression_time_ms"])
def test_where_a_records_own_time_is_ahead_as_well_the_clock_of_who_reads_it_is_named(field: str) -> None:
    sent_ms = LATEST_MS + 2
    given = replace(record(click(**{field: LATEST_MS + 1})), timestamp=sent_ms)

    ((_, message),) = reasons(decoded([given]))

    why = f"{field} {LATEST_MS + 1} is in the future (at most {LATEST_MS}), as is its record's time, {sent_ms}"
    assert message == f"{why}; where many producers' are, this machine's clock is behind"


def test_a_time_at_the_limit_is_taken_whatever_comes_with_it() -> None:
    latest = record(click(time_ms=LATEST_MS, impression_time_ms=LATEST_MS))
    later = record(click("b", time_ms=LATEST_MS + 1), offset=1)
    for given in ([latest], [latest, later]):
        assert decoded(given).events["offset"].tolist() == [0]


def test_what_is_refused_makes_no_row() -> None:
    store = RowStore()

    decoded([record(click("a"), key=b"b"), record(click("c"), value=b"{")], store)
    decoded([record(click("d"))], store, misplaced={b"d"})

    assert len(store) == 0


def test_a_new_user_of_another_lane_is_misplaced_and_nobody_is_asked_about_twice() -> None:
    store = RowStore()
    asked: list[bytes] = []
    given = [record(click(user), offset=n) for n, user in enumerate(["here", "there", "here", "there"])]

    def belongs_here(key: bytes) -> bool:
        asked.append(key)
        return key == b"here"

    out = decode(given, np.ones(4, dtype=np.uint8), store, latest_ms=LATEST_MS, belongs_here=belongs_here)

    assert out.misplaced == [given[1], given[3]]
    assert out.events["offset"].tolist() == [0, 2]
    assert asked == [b"here", b"there"]


@pytest.mark.parametrize("consent", [None, False])
def test_who_belongs_to_another_lane_is_judged_there_whatever_they_agree_to(consent: bool | None) -> None:
    gate, given = Gate(presumed=False), [record(click("there", consent=consent))]

    out = decode(
        given,
        np.ones(1, dtype=np.uint8),
        RowStore(),
        latest_ms=LATEST_MS,
        belongs_here=lambda _: False,
        gate=gate,
    )

    assert out.misplaced == given
    assert (out.strangers, out.withdrawn, gate.watermarks.until_ms) == ([], [], {})


def test_no_records_are_no_events() -> None:
    out = decoded([])

    assert (len(out.events), out.dead, out.misplaced) == (0, [], [])
    assert out.events.dtype == EVENT


def test_a_lane_that_is_full_sets_new_users_aside_and_goes_on_with_those_it_knows() -> None:
    store = RowStore(rows_max=1)

    out = decoded(records([click("known"), click("new"), click("known")]), store)

    assert [(dead.key, stage, error) for dead, stage, error, _ in out.dead] == [(b"new", "state", "LaneFull")]
    assert "SALIENCE_ROWS_PER_LANE_MAX" in out.dead[0][3]
    assert out.events["offset"].tolist() == [0, 2]
