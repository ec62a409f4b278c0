"""Who is missed: groups that go while a broker is away, and those that were deleted."""

import pytest

from streams.lag import roll
from streams.lag.roll import AWAY_MS, SETTLE_MS, Roll


def test_a_group_that_nobody_lists_is_missed_for_as_long_as_a_broker_is_away_and_until_it_has_settled() -> None:
    called = Roll()
    assert called.missed(1_000, {0, 1, 2}, {"g", "h"}, whole=True) == set()
    for now_ms in (2_000, 60_000, 600_000):  # the client knows of two brokers, and hears both
        assert called.missed(now_ms, {0, 2}, {"g"}, whole=True) == {"h"}
    assert called.missed(600_000 + SETTLE_MS, {0, 1, 2}, {"g"}, whole=True) == {"h"}
    assert called.missed(600_001 + SETTLE_MS, {0, 1, 2}, {"g", "h"}, whole=True) == set()


def test_a_group_that_nobody_lists_is_missed_while_a_broker_does_not_list_its_own() -> None:
    called = Roll()
    called.missed(1_000, {0}, {"g", "h"}, whole=True)
    for now_ms in (60_000, 120_000):
        assert called.missed(now_ms, {0}, {"g"}, whole=False) == {"h"}


def test_a_group_that_moves_is_missed_for_a_moment_and_one_that_was_deleted_no_longer() -> None:
    called = Roll()
    called.missed(1_000, {0, 1}, {"g", "h"}, whole=True)
    assert called.missed(1_000 + SETTLE_MS, {0, 1}, {"g"}, whole=True) == {"h"}
    assert called.missed(1_001 + SETTLE_MS, {0, 1}, {"g"}, whole=True) == set()
    assert called.missed(2_000 + SETTLE_MS, {0}, {"g"}, whole=True) == set(), "it was deleted before"


def test_the_roll_is_short_from_when_a_broker_goes_until_its_groups_have_settled_and_not_where_a_group_goes() -> None:
    called = Roll()
    called.missed(1_000, {0, 1}, {"g", "h"}, whole=True)
    assert not called.short
    assert called.missed(2_000, {0, 1}, {"g"}, whole=True) == {"h"}
    assert not called.short
    for nodes, whole in (({0}, True), ({0, 1}, False)):
        called.missed(3_000, nodes, {"g"}, whole=whole)
        assert called.short
    called.missed(3_000 + SETTLE_MS, {0, 1}, {"g"}, whole=True)
    assert called.short
    called.missed(3_001 + SETTLE_MS, {0, 1}, {"g"}, whole=True)
    assert not called.short


def test_a_broker_that_stays_away_is_taken_for_removed_and_its_groups_for_deleted() -> None:
    called = Roll()
    called.missed(1_000, {0, 1}, {"g", "h"}, whole=True)
    assert called.missed(1_000 + AWAY_MS, {0}, {"g"}, whole=True) == {"h"}
    assert called.missed(1_001 + AWAY_MS, {0}, {"g"}, whole=True) == set()
    called.missed(2_000 + AWAY_MS, {0}, {"g", "i"}, whole=True)
    assert called.missed(3_000 + AWAY_MS + SETTLE_MS, {0}, {"g"}, whole=True) == set(), "every broker is there"


def test_a_broker_that_never_tells_keeps_no_group_for_ever() -> None:
    called = Roll()
    called.missed(1_000, {0, 1}, {"g", "h"}, whole=False)
    assert called.missed(1_001 + AWAY_MS, {0, 1}, {"g"}, whole=False) == set()


def test_of_more_groups_than_are_kept_those_last_listed_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll, "MISSED_MAX", 2)
    called = Roll()
    called.missed(1_000, {0, 1}, {"g", "h"}, whole=True)
    called.missed(2_000, {0}, {"i"}, whole=True)
    called.missed(3_000, {0}, {"j"}, whole=True)
    assert called.missed(4_000, {0}, set[str](), whole=True) == {"i", "j"}
    assert called.missed(5_000, {0}, {"i", "j"}, whole=True) == set(), "the others were forgotten"
