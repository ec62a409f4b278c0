"""What polls come to: groups and topics summed up, what is forgotten, and what Prometheus is told of it."""

import math

import pytest
from prometheus_client.samples import Sample

from streams.lag.arithmetic import Rules, Status
from streams.lag.board import Board, GroupLag, GroupSeen, Observation, Partition, Report, worst
from streams.lag.exporter import LagCollector
from streams.lag.monitor import News

CLICKS, MORE, ADS = Partition("clicks", 0), Partition("clicks", 1), Partition("ads", 0)


def seen(
    time_ms: int,
    committed: dict[Partition, int],
    ends: dict[Partition, int],
    owners: dict[Partition, str] | None = None,
) -> Observation:
    return Observation(time_ms, {"g": GroupSeen("stable", 1, committed, owners)}, ends)


def reported(*observations: Observation) -> GroupLag:
    board = Board(Rules(stuck_ms=2_000))
    for one in observations:
        (group,) = board.observe(one).groups
    return group


def test_where_there_is_no_group_nothing_is_known_and_of_no_partition_nothing_is_wrong() -> None:
    assert Report(watched_s=0.0, groups=()).worst is Status.UNKNOWN
    assert worst([]) is Status.OK
    assert worst([Status.WARN, Status.OK, Status.UNKNOWN]) is Status.WARN
    empty = reported(seen(0, {}, {}))
    assert (empty.total.status, empty.total.catch_up_s, empty.total.time_lag_s) == (Status.OK, 0.0, 0.0)
    assert (empty.total.time_lag_at_least, empty.topics) == (False, {})


def test_a_report_tells_how_long_it_has_watched() -> None:
    board = Board(Rules())
    assert [board.observe(Observation(time_ms, {}, {})).watched_s for time_ms in (5_000, 6_000, 8_500)] == [0, 1, 3.5]


def test_groups_are_reported_in_the_order_of_their_names_whichever_broker_told_of_them_first() -> None:
    groups = {name: GroupSeen("stable", 1, {CLICKS: 0}, None) for name in ("shop", "ads", "referee")}
    report = Board(Rules()).observe(Observation(0, groups, {CLICKS: 0}))
    assert [group.group for group in report.groups] == ["ads", "referee", "shop"]


BEHIND = [seen(1_000 * second, {CLICKS: 0}, {CLICKS: 10 * second}) for second in range(4)]
BACK = seen(5_000, {CLICKS: 0}, {CLICKS: 50}, {CLICKS: "w@1"})


def test_a_log_end_is_remembered_from_poll_to_poll_and_a_partition_that_is_gone_is_forgotten() -> None:
    assert reported(*BEHIND).total.time_lag_s == 3.0
    assert not reported(*BEHIND).total.time_lag_at_least
    back = reported(*BEHIND, seen(4_000, {}, {}), BACK).total
    assert (back.time_lag_s, back.time_lag_at_least) == (0.0, True)


def test_what_is_known_of_a_group_outlasts_polls_in_which_its_broker_does_not_answer() -> None:
    board = Board(Rules(stuck_ms=2_000))
    for one in BEHIND:
        board.observe(one)
    assert board.observe(Observation(4_000, {}, {}, unasked=["g"])).groups == ()
    (back,) = board.observe(seen(5_000, {CLICKS: 0}, {CLICKS: 50})).groups
    assert (back.total.time_lag_s, back.total.time_lag_at_least) == (5.0, False)


@pytest.mark.parametrize(
    ("committed", "owners"), [({CLICKS: 0}, {CLICKS: "w@1"}), ({CLICKS: 0}, None), ({}, {CLICKS: "w@1"})]
)
def test_a_poll_without_a_leader_takes_nothing_of_what_is_known_of_when_a_log_ended_where(
    committed: dict[Partition, int], owners: dict[Partition, str] | None
) -> None:
    away = seen(4_000, committed, {}, owners)
    assert (reported(*BEHIND, away).total.status, reported(*BEHIND, away).total.lag) == (Status.UNKNOWN, 0)
    back = reported(*BEHIND, away, BACK).total
    assert (back.time_lag_s, back.time_lag_at_least) == (5.0, False)
    another = reported(*BEHIND, away, seen(5_000, {CLICKS: 0}, {CLICKS: 25})).total  # a shorter log of this name
    assert (another.time_lag_s, another.time_lag_at_least) == (0.0, True)


def test_who_owns_a_partition_is_told_and_decides_whether_a_member_stalls_or_is_gone() -> None:
    def stuck(owners: dict[Partition, str] | None) -> GroupLag:
        return reported(*(seen(1_000 * second, {CLICKS: 5}, {CLICKS: 10}, owners) for second in range(4)))

    assert [(one.status, one.owner) for one in stuck({CLICKS: "w@1"}).partitions] == [(Status.STALL, "w@1")]
    assert [(one.status, one.owner) for one in stuck({}).partitions] == [(Status.STOP, None)]
    assert [(one.status, one.owner) for one in stuck(None).partitions] == [(Status.STOP, None)]


def test_what_is_owned_and_was_never_committed_is_there_and_unknown() -> None:
    group = reported(seen(0, {CLICKS: 5}, {CLICKS: 10, MORE: 10}, {MORE: "w@1", CLICKS: "w@1"}))
    assert [(one.partition, one.status) for one in group.partitions] == [(0, Status.OK), (1, Status.UNKNOWN)]
    assert group.total.status is Status.UNKNOWN


def test_topics_and_groups_are_sums_and_of_times_the_worst() -> None:
    ends = [{CLICKS: 100 * s, MORE: 10 * s, ADS: 7 * s} for s in range(5)]
    committed = [{CLICKS: 60 * s, MORE: 2 * s, ADS: 7 * s} for s in range(5)]
    at_once = reported(*(seen(1_000 * s, committed[s], ends[s]) for s in range(5)))
    clicks, ads = at_once.topics["clicks"], at_once.topics["ads"]
    assert list(at_once.topics) == ["ads", "clicks"]
    assert (clicks.partitions, clicks.lag, clicks.consumed_per_s, clicks.produced_per_s) == (2, 192, 62.0, 110.0)
    assert (clicks.time_lag_s, ads.time_lag_s, at_once.total.time_lag_s) == (3.2, 0.0, 3.2)
    assert (ads.catch_up_s, clicks.catch_up_s, at_once.total.catch_up_s) == (0.0, None, None)
    assert (at_once.total.partitions, at_once.total.lag, at_once.total.produced_per_s) == (3, 192, 117.0)


def test_a_poll_of_many_topics_looks_at_each_partition_a_few_times_only() -> None:
    compared = 0

    class Topic(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    parts = [Partition(Topic(f"t{topic:03}"), number) for topic in range(200) for number in range(5)]
    group = reported(seen(0, dict.fromkeys(parts, 1), dict.fromkeys(parts, 3)))
    assert list(group.topics) == [f"t{topic:03}" for topic in range(200)]
    assert {(one.partitions, one.lag) for one in group.topics.values()} == {(5, 10)}
    assert compared < 50 * len(parts)  # sorting takes ten; each topic beside each partition took 200


def test_a_group_has_caught_up_when_its_last_partition_has_and_what_is_unknown_does_not_count() -> None:
    ends = {CLICKS: 1_000, MORE: 1_000}
    first, last = ({CLICKS: at, MORE: 5 * at, ADS: 3} for at in (100, 110))
    total = reported(seen(0, first, ends), seen(1_000, last, ends)).total
    assert total.catch_up_s == 890 / 10


def test_time_lag_is_at_least_so_much_where_that_of_the_oldest_is() -> None:
    ends = [{CLICKS: 100, MORE: 100}, {CLICKS: 100, MORE: 150}, {CLICKS: 100, MORE: 150}]
    older = reported(*(seen(1_000 * s, {CLICKS: 50, MORE: 100}, ends[s]) for s in range(3)))
    assert (older.total.time_lag_s, older.total.time_lag_at_least) == (2.0, True)
    grown = [{CLICKS: 0}, {CLICKS: 10}, {CLICKS: 20, MORE: 50}, {CLICKS: 30, MORE: 60}]
    newer = reported(*(seen(1_000 * s, {CLICKS: 0, MORE: 5}, grown[s]) for s in range(4)))
    assert [one.time_lag_at_least for one in newer.partitions] == [False, True]
    assert (newer.total.time_lag_s, newer.total.time_lag_at_least) == (3.0, False)


def exported(report: Report, **news: object) -> dict[tuple[str, str], float]:
    told = {"time_ms": 5_000, "age_s": 0.5, "stale": False, "polls": 7, "failed": 2, "poll_s": 0.25, "error": ""}
    collector = LagCollector(lambda: News(report=report, **(told | news)))  # type: ignore[arg-type]  # by name
    return {(sample.name, labels_of(sample)): sample.value for one in collector.collect() for sample in one.samples}


def labels_of(sample: Sample) -> str:
    return " ".join(sample.labels[name] for name in ("group", "topic", "partition", "outcome") if name in sample.labels)


def test_every_figure_of_a_partition_is_exported_and_what_is_unknown_is_not() -> None:
    board = Board(Rules(stuck_ms=2_000))
    for second in range(4):
        ends = {CLICKS: 100 + 30 * second, MORE: 40}
        report = board.observe(seen(1_000 * second, {CLICKS: 90, MORE: 10 * second, ADS: 3}, ends))
    told = exported(report)

    def of(name: str) -> list[float | None]:
        return [told.get((f"salience_lag_{name}", where)) for where in ("g clicks 0", "g clicks 1", "g ads 0")]

    assert None not in told.values()
    assert of("records") == [100, 10, None]
    assert of("seconds") == [3, 3, None]
    assert of("committed_offset") == [90, 30, 3]
    assert of("log_end_offset") == [190, 40, None]
    assert of("consumed_records_per_second") == [0, 10, 0]
    assert of("produced_records_per_second") == [30, 0, 0]
    assert of("catch_up_seconds") == [math.inf, 1, None]
    assert of("stuck_seconds") == [3, 0, 0]


def test_how_fresh_a_report_is_is_exported_too() -> None:
    told = exported(Report(watched_s=0.0, groups=()))
    assert told["salience_lag_poll_timestamp_seconds", ""] == 5
    assert told["salience_lag_poll_age_seconds", ""] == 0.5
    assert told["salience_lag_poll_duration_seconds", ""] == 0.25
    assert (told["salience_lag_polls_total", "ok"], told["salience_lag_polls_total", "failed"]) == (5, 2)


def test_that_a_report_lacks_groups_is_exported_whether_or_not_it_has_any() -> None:
    empty = Report(watched_s=0.0, groups=())
    assert exported(empty)["salience_lag_lacking", ""] == 0
    assert exported(empty, lacking="no broker lists g now")["salience_lag_lacking", ""] == 1
