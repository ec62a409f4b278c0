"""What the doctor says of topics: a row for each thing that is wrong, whatever the number of topics."""

import asyncio
from collections.abc import Mapping

import pytest

from streams import checkup, latest_events, topic_admin, topics
from streams.checkup import Check, ads, of_topics
from streams.lanes.outbox import Outbox
from streams.latest_ads import Stock
from streams.reading import MissingTopicError
from streams.settings import Settings
from streams.topic_admin import Seen, compare

MADE = {topic.name: Seen(topic.partitions(4), topic.cleanup) for topic in topics.TABLE}


def told(seen: Mapping[str, Seen]) -> list[Check]:
    return list(of_topics(compare(seen, 4, "", "--bootstrap b:9092"), 4))


def in_stock(
    records: int = 0, known: int = 0, placeable: int = 0, refused: int = 0, why: str = "", *, whole: bool = True
) -> Stock:
    return Stock(records=records, known=known, placeable=placeable, refused=refused, why=why, whole=whole)


def of_ads(stock: Stock, events: int) -> Check:
    return ads(stock, events, "shop-ads")


def test_without_an_ad_that_may_be_shown_something_is_wrong_once_somebody_has_come() -> None:
    assert of_ads(in_stock(), events=0).ok
    none = of_ads(in_stock(), events=14)
    assert (none.ok, none.found) == (False, "0 of 0 may be shown now")
    assert "publish ads to shop-ads, each by its ad_id as the key" in none.fix
    ended = of_ads(in_stock(records=12, known=12), events=14)
    assert (ended.ok, ended.found) == (False, "0 of 12 may be shown now")
    assert "end_ms" in ended.fix
    one = of_ads(in_stock(records=12, known=12, placeable=1), events=14)
    assert one == Check("ads", True, "1 of 12 may be shown now")


@pytest.mark.parametrize("known", [20_000, 0], ids=["ended", "withdrawn"])
def test_where_older_ads_were_not_read_none_among_the_newest_is_told_and_is_not_wrong(known: int) -> None:
    newest = of_ads(in_stock(records=20_000, known=known, whole=False), events=14)
    assert (newest.ok, newest.found) == (True, f"of the newest 20,000 records: 0 of {known:,} may be shown now")
    assert "salience tail placements" in newest.fix
    some = of_ads(in_stock(records=20_000, known=20_000, placeable=7, whole=False), events=14)
    assert some == Check("ads", True, "of the newest 20,000 records: 7 of 20,000 may be shown now")
    bad = of_ads(in_stock(records=20_000, known=9, refused=201, why="x", whole=False), events=14)
    assert not bad.ok


def test_ads_that_are_refused_are_told_with_what_is_wrong_with_the_first() -> None:
    refused = of_ads(in_stock(records=12, refused=12, why="CatalogueError: the key"), events=0)
    assert (refused.ok, refused.found) == (False, "0 of 0 may be shown now; 12 of 12 records are refused")
    assert refused.fix.startswith("salience dead-letters list; ")
    assert "ad_id as the key, a tombstone by a key that is none" in refused.fix
    assert refused.fix.endswith("; the first: CatalogueError: the key")
    one = of_ads(in_stock(records=1_000, known=999, placeable=999, refused=1, why="x"), events=0)
    assert (one.ok, one.found) == (True, "999 of 999 may be shown now; 1 of 1,000 records are refused")


def test_topics_that_are_missing_take_one_row_with_all_their_names_and_the_command_that_makes_them() -> None:
    (row,) = told({})
    names = [topic.name for topic in topics.TABLE]
    assert (row.name, row.ok, [*row.topics]) == ("topics", False, names)
    assert row.found == f"not there: {', '.join(names)}"
    assert row.fix == "salience topics create --bootstrap b:9092 --partitions 4"


def test_a_broker_that_reports_no_configs_takes_one_row_and_nothing_is_wrong() -> None:
    (row,) = told({name: Seen(seen.partitions, None) for name, seen in MADE.items()})
    assert (row.ok, len(row.topics), row.fix) == (True, len(MADE), "")


def test_what_is_wrong_in_other_ways_takes_other_rows_and_each_topic_is_told_with_what_it_has() -> None:
    seen = MADE | {"control": Seen(1, "delete"), "state-changelog": Seen(4, "delete"), "placements": Seen(2, "compact")}
    partitions, cleanup = sorted(told(seen), key=lambda row: len(row.topics))
    assert [*partitions.topics] == ["placements"]
    assert "placements has 2 partitions, expected 4" in partitions.found
    assert [*cleanup.topics] == ["control", "state-changelog"]
    for name in cleanup.topics:
        assert f"{name} has cleanup.policy=delete, expected compact" in cleanup.found
    assert cleanup.fix.endswith("--configure")


def test_configs_other_than_the_tables_take_one_row_with_the_command_and_nothing_is_wrong() -> None:
    other = {"retention.ms": "1"}
    (row,) = told(MADE | {name: Seen(4, "delete", 1, other) for name in ("clicks", "outcomes")})
    assert (row.ok, [*row.topics]) == (True, ["clicks", "outcomes"])
    assert all(f"{name} has retention.ms=1, expected 604800000." in row.found for name in row.topics)
    assert row.found.count("on purpose") == 1
    assert row.fix == "salience topics create --bootstrap b:9092 --configure"


def test_topics_with_fewer_copies_than_the_brokers_could_hold_take_one_row_and_nothing_is_wrong() -> None:
    (row,) = of_topics(compare(MADE, 4, "", "--bootstrap b:9092", copies=3), 4)
    assert (row.ok, [*row.topics]) == (True, [*MADE])
    assert row.found.startswith(f"fewer copies than the brokers could hold, of {', '.join(MADE)}. ")
    assert row.fix.endswith("; then salience topics create --bootstrap b:9092 --configure")


def test_what_another_number_of_partitions_means_is_told_once_whatever_the_number_of_topics() -> None:
    lanes = {topic.name for topic in topics.TABLE if topic.lanes}
    (row,) = told(MADE | {name: Seen(8, MADE[name].cleanup) for name in lanes})
    assert {*row.topics} == lanes
    assert all(f"{name} has 8 partitions, expected 4. " in row.found for name in lanes)
    assert row.found.count("Another number would move users") == 1
    assert row.found.endswith("or say --partitions 8.")


def test_where_nothing_is_wrong_one_row_says_so() -> None:
    assert told(MADE) == [Check("topics", ok=True, found=f"all {len(MADE)} there, 4 lanes")]


def test_before_the_topics_are_made_only_their_row_tells_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    async def absent(_: Settings) -> object:
        raise MissingTopicError("there is no topic 'control'")

    monkeypatch.setattr("streams.control.read_control", absent)
    check = checkup._guarded("control", checkup._control, Settings())
    assert (check.ok, check.found, check.fix) == (
        False, "not looked at: not all topics are there", "what helps with topics"
    )  # fmt: skip


def test_a_check_that_fails_in_an_unforeseen_way_takes_none_of_the_others_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object) -> object:
        raise KeyError("lane 3")

    monkeypatch.setattr(topic_admin, "partition_counts", lambda *_: {})
    monkeypatch.setattr(topic_admin, "found", breaks)
    monkeypatch.setattr(latest_events, "sample", breaks)
    told = {check.name: check for check in checkup.checkup(Settings(guarantee="at_least_once"))}
    for name in ("topics", "events"):
        assert (told[name].ok, told[name].found) == (False, "KeyError: 'lane 3'")
    assert "guarantee" in told


def test_a_broker_that_takes_long_for_a_transaction_is_not_told_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever heeds the doctor over a slow link gives up exactly once."""

    async def never(_: Outbox) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(checkup, "TRANSACTION_S", 0.0)
    monkeypatch.setattr(Outbox, "start", never)
    check = checkup._guarantee(Settings(guarantee="exactly_once"))
    assert (check.ok, check.found) == (False, "exactly_once, but the broker has opened no transaction within 0 s")
    assert check.fix.startswith("ask again")
    assert "at_least_once" not in check.fix
