import asyncio
import socket

import msgspec
import pytest
from aiokafka.errors import KafkaError

from streams.client import Latest, PlacementView, ViewError
from streams.wire import Placement, Slot, encode_json

NOW_MS = 1_760_000_000_000


def placement(user: str, name: str, valid_until_ms: int = NOW_MS + 1_000) -> Placement:
    return Placement(
        placement_id=name,
        user_id=user,
        time_ms=NOW_MS,
        valid_until_ms=valid_until_ms,
        arm="engine",
        model="m",
        slots=(),
    )


def take(latest: Latest, *placements: Placement) -> None:
    for each in placements:
        latest.take(each.user_id.encode(), encode_json(each))


def test_the_latest_placement_of_a_user_wins() -> None:
    latest = Latest()
    take(latest, placement("u", "p1"), placement("v", "p2"), placement("u", "p3"))
    held = latest.get("u", NOW_MS)
    assert held == placement("u", "p3")
    assert latest.get("nobody", NOW_MS) is None
    assert len(latest) == 2


def test_an_older_placement_that_comes_later_is_counted_and_does_not_replace_a_newer_one() -> None:
    called: list[str] = []
    latest = Latest(on_placement=lambda each: called.append(each.placement_id))
    newer, older = placement("u", "p2"), msgspec.structs.replace(placement("u", "p1"), time_ms=NOW_MS - 1)
    same = placement("u", "p3")
    take(latest, newer, older)
    assert latest.get("u", NOW_MS) == newer
    take(latest, same)
    assert latest.get("u", NOW_MS) == same
    assert called == ["p2", "p3"]
    assert (latest.counts.placements, latest.counts.older) == (2, 1)
    latest.take(b"u", None)
    take(latest, older)
    assert latest.get("u", NOW_MS) == older


def test_a_placement_of_a_time_when_clocks_were_a_year_ahead_is_replaced_by_the_next() -> None:
    latest, year_ms = Latest(clock=lambda: NOW_MS), 365 * 86_400_000
    ahead = msgspec.structs.replace(placement("u", "p1", NOW_MS + year_ms + 1_000), time_ms=NOW_MS + year_ms)
    take(latest, ahead, placement("u", "p2"))
    assert latest.get("u", NOW_MS) == placement("u", "p2")


@pytest.mark.parametrize("ahead_ms", [5_000, 365 * 86_400_000])
def test_a_placement_dated_ahead_pushes_out_none_that_is_valid(ahead_ms: int) -> None:
    latest = Latest(users_max=3, clock=lambda: NOW_MS)
    take(latest, msgspec.structs.replace(placement("fast", "p", NOW_MS + ahead_ms + 1_000), time_ms=NOW_MS + ahead_ms))
    for number in range(6):
        take(latest, placement(f"u{number}", f"p{number}"))
        assert latest.get(f"u{number}", NOW_MS) is not None
    assert [number for number in range(6) if latest.get(f"u{number}", NOW_MS)] == [3, 4, 5]


def test_of_a_log_of_years_ago_the_placements_that_had_expired_first_go_first() -> None:
    latest = Latest(users_max=2, clock=lambda: NOW_MS + 10**12)
    take(latest, placement("a", "p1", NOW_MS - 1), placement("b", "p2"), placement("c", "p3"))
    assert [user for user in "abc" if latest.get(user, NOW_MS - 2)] == ["b", "c"]


def test_a_placement_of_context_alone_takes_the_place_of_a_personal_one_of_a_later_event() -> None:
    """Whoever refuses may have a clock that is behind; what was held is a person's who is no longer remembered."""
    latest = Latest()
    personal = placement("u", "p1")
    bare = msgspec.structs.replace(placement("u", "p2"), time_ms=NOW_MS - 1_000, context_only=True)
    take(latest, personal, bare)
    assert latest.get("u", NOW_MS) == bare
    take(latest, msgspec.structs.replace(bare, placement_id="p3", time_ms=NOW_MS - 2_000))
    assert latest.get("u", NOW_MS) == bare
    assert (latest.counts.placements, latest.counts.older) == (2, 1)


def test_a_repeat_is_counted_and_not_called_back() -> None:
    called: list[str] = []
    latest = Latest(on_placement=lambda each: called.append(each.placement_id))
    take(latest, placement("u", "p1"), placement("u", "p1"), placement("u", "p2"))
    assert called == ["p1", "p2"]
    assert (latest.counts.placements, latest.counts.repeats) == (2, 1)


def test_an_expired_placement_is_dropped_when_asked_for() -> None:
    latest = Latest()
    take(latest, placement("u", "p1", valid_until_ms=NOW_MS))
    assert latest.get("u", NOW_MS - 1) is not None
    assert latest.get("u", NOW_MS) is None
    assert len(latest) == 0
    assert latest.get("u", NOW_MS - 1) is None


def test_an_ad_that_has_ended_is_left_out_of_a_placement_that_has_not() -> None:
    lasting = Slot(slot=0, ad_id="lasting", campaign_id="c", pctr=0.1, ecpm_micros=1, price_micros=1, propensity=1.0)
    ending = msgspec.structs.replace(lasting, slot=1, ad_id="ending", until_ms=NOW_MS + 500)
    latest = Latest()
    take(latest, msgspec.structs.replace(placement("u", "p1"), slots=(lasting, ending)))
    shown = [latest.get("u", NOW_MS + after_ms) for after_ms in (499, 500, 999, 499)]
    assert [held and held.slots for held in shown] == [(lasting, ending), (lasting,), (lasting,), (lasting, ending)]


def test_a_tombstone_removes_the_placement() -> None:
    latest = Latest()
    take(latest, placement("u", "p1"))
    latest.take(b"u", None)
    latest.take(b"never-seen", None)
    assert latest.get("u", NOW_MS) is None
    assert latest.counts.tombstones == 2


def test_beyond_the_bound_the_user_longest_untouched_is_dropped() -> None:
    latest = Latest(users_max=2)
    take(latest, placement("a", "p1"), placement("b", "p2"))
    latest.get("a", NOW_MS)
    take(latest, placement("c", "p3"))
    assert [latest.get(user, NOW_MS) is not None for user in "abc"] == [True, False, True]
    assert (len(latest), latest.counts.evicted) == (2, 1)


def test_beyond_the_bound_a_placement_that_has_ended_is_dropped_before_one_that_has_not() -> None:
    """A view reads partition by partition: the old placements of one may come after the newest of another."""
    latest = Latest(users_max=2)
    day_ms = 86_400_000
    former = [placement(user, user, NOW_MS - day_ms + 1_000) for user in ("old-1", "old-2", "old-3")]
    take(latest, placement("a", "p1"))
    take(latest, *(msgspec.structs.replace(each, time_ms=NOW_MS - day_ms) for each in former))
    assert latest.get("a", NOW_MS) is not None
    take(latest, placement("b", "p2"))
    assert [latest.get(user, NOW_MS) is not None for user in "ab"] == [True, True]
    assert (len(latest), latest.counts.evicted) == (2, 3)


def test_only_the_users_asked_for_are_held() -> None:
    latest = Latest(only={"a"})
    take(latest, placement("a", "p1"), placement("b", "p2"))
    latest.take(b"b", b"not even read")
    assert latest.get("a", NOW_MS) is not None
    assert latest.get("b", NOW_MS) is None
    assert (latest.counts.placements, latest.counts.malformed) == (1, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u", b"no json"),
        (b"u", b'{"placement_id": "p"}'),
        (b"u", encode_json(placement("someone-else", "p1"))),
        (None, encode_json(placement("u", "p1"))),
        (b"\xff\xfe", encode_json(placement("u", "p1"))),
        (b"u", b""),
    ],
)
def test_a_malformed_record_is_counted_and_changes_nothing(key: bytes | None, value: bytes) -> None:
    latest = Latest()
    take(latest, placement("u", "p0"))
    latest.take(key, value)
    assert latest.counts.malformed == 1
    assert latest.get("u", NOW_MS) == placement("u", "p0")


def test_a_bound_of_no_users_is_refused() -> None:
    with pytest.raises(ValueError, match="users_max is 0"):
        Latest(users_max=0)


def test_a_view_that_is_not_open_says_so() -> None:
    with pytest.raises(ViewError, match="async with"):
        PlacementView().get("u")


async def test_a_view_is_entered_once_also_where_no_broker_was_there_and_another_one_is_opened() -> None:
    view = PlacementView("127.0.0.1:1")
    with pytest.raises(KafkaError):
        await view.__aenter__()
    with pytest.raises(ViewError, match=r"entered once.*open a new one"):
        await view.__aenter__()
    with pytest.raises(KafkaError):
        await PlacementView("127.0.0.1:1").__aenter__()


def test_a_broker_that_takes_connections_and_never_answers_is_given_up_within_the_view_s_time() -> None:
    async def scenario(port: int) -> set[asyncio.Task[object]]:
        with pytest.raises(ViewError, match=r"within 0\.1 s .*raise ready_within_s, or see to 127"):
            await PlacementView(f"127.0.0.1:{port}", ready_within_s=0.1).__aenter__()
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert asyncio.run(scenario(silent.getsockname()[1])) == set()
