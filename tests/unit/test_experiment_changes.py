"""Experiments that several people change at once: one change stands, for every reader, and whose does not is told."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import pytest

from streams.control import Control
from streams.control_wire import Allocation, ControlMessage, ExperimentSetting
from streams.experiments.changes import alter, settled
from streams.experiments.registry import Bandit, ExperimentError, next_cohort, ramp_to, start, stop
from streams.wire import encode_json
from tests.builders import Record
from tests.unit.test_experiment_numbers import Topic, asked

Command = Callable[[Topic], ExperimentSetting]


class Crowded(Topic):
    """Before its operation number ``at`` somebody else does something, from beginning to end."""

    def __init__(self, at: int, other: Command, records: Sequence[Record] = ()) -> None:
        super().__init__()
        self.records = list(records)
        self._left, self._other = at, other
        self._outcome: ExperimentSetting | str = ""

    def read(self) -> Control:
        self._step()
        return super().read()

    def write(self, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()) -> None:
        self._step()
        super().write(messages, gone)

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._outcome = outcome(self._other, self)

    def other(self) -> ExperimentSetting | str:
        """What came of the other, who comes afterwards where there were fewer operations."""
        while not self._outcome:
            self._step()
        return self._outcome


def outcome(command: Command, topic: Topic) -> ExperimentSetting | str:
    """What the command returned, or why it was refused."""
    try:
        return command(topic)
    except ExperimentError as error:
        return str(error)


def creates(value: float) -> Command:
    def command(topic: Topic) -> ExperimentSetting:
        draft = asked("warmth", value=value)
        made = draft(topic.read().all(ExperimentSetting))
        topic.write([made])
        return settled(draft, made, topic.read, topic.write)

    return command


def changes(change: Callable[[ExperimentSetting], ExperimentSetting]) -> Command:
    return lambda topic: alter("warmth", change, topic.read, topic.write)


starts, stops = (
    changes(partial(start, ramp=0.2, time_ms=2)),
    changes(partial(stop, reason="costs too much", time_ms=3)),
)
ramps = changes(partial(ramp_to, ramp=0.5, time_ms=4))


def in_turn(*commands: Command) -> Command:
    def command(topic: Topic) -> ExperimentSetting:
        return [each(topic) for each in commands][-1]

    return command


def records_of(*commands: Command) -> list[Record]:
    in_turn(*commands)(topic := Topic())
    return topic.records


def told(records: Sequence[Record]) -> list[ExperimentSetting | None]:
    """What a worker that reads them is told of the experiment, one after the other."""
    heard: list[ExperimentSetting | None] = []
    control = Control()
    control.on(ExperimentSetting, lambda _, setting: heard.append(setting))
    control.take(records)
    return heard


def assert_all_read_alike(topic: Topic, since: int = 0) -> Mapping[str, ExperimentSetting]:
    """Whoever reads the topic compacted, as far as it may be, finds what those do who were there all the time.

    ``since``: how much of it has been compacted at least.
    """
    stands = topic.known()
    for end in range(since, len(topic.records) + 1):
        newest = {record.key: record for record in topic.records[:end]}
        compacted = Topic()
        compacted.records = [*newest.values(), *topic.records[end:]]
        assert {name: content(one) for name, one in compacted.known().items()} == {
            name: content(one) for name, one in stands.items()
        }
    return stands


def content(setting: ExperimentSetting) -> ExperimentSetting:
    return msgspec.structs.replace(setting, revision=0)


AT = pytest.mark.parametrize("at", range(1, 6))


@AT
@pytest.mark.parametrize("other", [creates(0.9), in_turn(creates(0.9), starts), in_turn(creates(0.9), starts, stops)])
def test_of_two_who_create_one_name_at_once_one_has_it_and_the_other_is_told(at: int, other: Command) -> None:
    topic = Crowded(at, other)
    both = [outcome(creates(0.3), topic), topic.other()]
    (created,) = [one for one in both if isinstance(one, ExperimentSetting)]
    (refused,) = [one for one in both if isinstance(one, str)]
    assert "an experiment 'warmth'" in refused
    stands = assert_all_read_alike(topic)
    assert content(stands["warmth"]) == content(created)
    assert all(one is not None and one.arms == created.arms for one in told(topic.records))  # nobody saw the other


def test_a_change_that_does_not_stand_is_not_the_newest_though_its_writer_was_killed() -> None:
    topic = Topic()
    topic.records = records_of(creates(0.3))
    started = partial(start, time_ms=2)

    def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage]) -> None:
        first = len(topic.records) == 1
        topic.write(messages, gone)
        if first:  # another is made from the same message, and nothing more of it comes
            topic.write([started(draft, 0.9)])

    draft = topic.known()["warmth"]
    assert alter("warmth", lambda setting: started(setting, 0.2), topic.read, write).ramp == 0.2
    assert assert_all_read_alike(topic, since=len(topic.records))["warmth"].ramp == 0.2


def test_who_gives_a_draft_up_takes_nothing_back_that_another_made_of_it_meanwhile() -> None:
    topic = Topic()
    first, second = asked("warmth", width=0.8)({}), asked("heat", width=0.8)({})
    topic.write([first, second])

    def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage]) -> None:
        if gone:
            topic.write([start(topic.known()["heat"], 1.0, 2)])
        topic.write(messages, gone)

    with pytest.raises(ExperimentError, match=r"no 0\.800 of the layer is free.*has changed it: it is running"):
        settled(asked("heat", width=0.8), second, topic.read, write)
    assert assert_all_read_alike(topic, since=len(topic.records))["heat"].status == "running"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_many_drafts_of_one_name_the_first_stands_in_whatever_order_the_others_find_out(order: list[int]) -> None:
    topic, drafts = Topic(), [asked("warmth", value=value) for value in (0.3, 0.5, 0.9)]
    made = [draft({}) for draft in drafts]
    for one in made:
        topic.write([one])
    for mine in order:
        if mine:
            with pytest.raises(ExperimentError, match="somebody else made or changed an experiment 'warmth'"):
                settled(drafts[mine], made[mine], topic.read, topic.write)
        else:
            assert content(settled(drafts[0], made[0], topic.read, topic.write)) == content(made[0])
    assert content(assert_all_read_alike(topic)["warmth"]) == content(made[0])


@AT
def test_an_experiment_that_is_started_while_another_finds_its_name_taken_goes_on(at: int) -> None:
    taken = asked("warmth", value=0.9)({})
    topic = Crowded(at, starts, records_of(creates(0.3)))
    Topic.write(topic, [taken])
    with pytest.raises(ExperimentError, match="somebody else"):
        settled(asked("warmth", value=0.9), taken, topic.read, topic.write)
    started = topic.other()
    assert isinstance(started, ExperimentSetting)
    assert content(assert_all_read_alike(topic)["warmth"]) == content(started)


@AT
@pytest.mark.parametrize(("mine", "other"), [(ramps, stops), (stops, ramps)])
def test_what_is_stopped_while_it_is_ramped_stays_stopped(at: int, mine: Command, other: Command) -> None:
    topic = Crowded(at, other, records_of(creates(0.3), starts))
    both = [outcome(mine, topic), topic.other()]
    assert assert_all_read_alike(topic)["warmth"].status == "stopped"
    statuses = [one.status for one in told(topic.records) if one is not None]
    assert statuses == sorted(statuses, key=["draft", "running", "stopped"].index)  # it was revived for nobody
    ramped = {one if isinstance(one, str) else one.status for one in both} - {"stopped"}
    assert ramped <= {"running", "warmth is stopped; start it first: salience experiment start"}


def test_a_stop_stands_though_it_was_made_from_a_message_that_no_longer_did() -> None:
    topic = Topic()
    topic.records = records_of(creates(0.3), starts)
    seen = topic.known()["warmth"]
    ramps(topic)
    topic.write([stop(seen, "costs too much", 5)])
    assert assert_all_read_alike(topic)["warmth"].status == "stopped"


@AT
def test_of_two_who_start_a_draft_at_once_one_does_and_the_other_is_told(at: int) -> None:
    topic = Crowded(at, changes(partial(start, ramp=1.0, time_ms=9)), records_of(creates(0.3)))
    both = [outcome(starts, topic), topic.other()]
    (started,) = [one for one in both if isinstance(one, ExperimentSetting)]
    assert "warmth is running; only a draft can be started" in both
    assert content(assert_all_read_alike(topic)["warmth"]) == content(started)
    assert {one.ramp for one in told(topic.records) if one is not None and one.status == "running"} == {started.ramp}


def test_a_draft_that_is_written_again_keeps_its_place_before_those_that_yield_to_it() -> None:
    topic = Topic()
    first, taken, later = asked("warmth")({}), asked("warmth", value=0.9)({}), asked("heat")({})
    topic.write([first, later, taken])
    with pytest.raises(ExperimentError, match="somebody else"):
        settled(asked("warmth", value=0.9), taken, topic.read, topic.write)
    yielded = settled(asked("heat"), later, topic.read, topic.write)
    assert (yielded.number, yielded.low) == (2, 0.5)
    assert settled(asked("warmth"), first, topic.read, topic.write).number == 1


def test_messages_of_who_tells_no_revision_stand_as_they_come() -> None:
    topic = Topic()
    draft = msgspec.structs.replace(asked("warmth")({}), revision=0)
    written = msgspec.json.decode(encode_json(draft))
    del written["revision"]
    topic.records = [Record("control", 0, 0, 1, draft.key, msgspec.json.encode(written))]
    assert starts(topic).revision == 1
    topic.write([msgspec.structs.replace(ramp_to(topic.known()["warmth"], 0.4, 3), revision=0)])
    assert assert_all_read_alike(topic)["warmth"].ramp == 0.4
    assert ramps(topic).ramp == 0.5


def test_who_changes_what_is_not_there_is_told_what_is() -> None:
    topic = Topic()
    topic.records = records_of(creates(0.3))
    with pytest.raises(ExperimentError, match="there is no experiment 'heat'; there are: warmth"):
        alter("heat", partial(stop, reason="", time_ms=3), topic.read, topic.write)


def test_who_changes_a_draft_that_is_taken_back_at_that_moment_is_told_that_there_is_none() -> None:
    topic = Topic()
    topic.records = records_of(creates(0.3))

    def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage]) -> None:
        topic.write(messages, gone)
        topic.write([], messages)

    with pytest.raises(ExperimentError, match="there is no experiment 'warmth'; there are: none"):
        alter("warmth", partial(start, ramp=0.2, time_ms=2), topic.read, write)


def test_who_made_a_draft_that_another_has_taken_back_is_told() -> None:
    topic, made = Topic(), asked("warmth")({})
    topic.write([made])
    topic.write([], [made])
    with pytest.raises(ExperimentError, match="somebody else made or changed an experiment 'warmth'"):
        settled(asked("warmth"), made, topic.read, topic.write)
    assert topic.known() == {}


def test_a_draft_without_room_is_taken_back_though_another_has_written_it_again() -> None:
    topic = Topic()
    first, second = asked("warmth", width=0.8)({}), asked("heat", width=0.8)({})
    topic.write([first, second, msgspec.structs.replace(second, revision=second.revision + 1)])
    with pytest.raises(ExperimentError, match=r"no 0\.800 of the layer is free, .* smaller --width$"):
        settled(asked("heat", width=0.8), second, topic.read, topic.write)
    assert topic.known() == {"warmth": first}


@pytest.mark.parametrize("ramp", [0.0, 1.01, math.nan])
def test_what_is_no_share_of_users_is_no_ramp(ramp: float) -> None:
    draft = asked("warmth")({})
    with pytest.raises(ExperimentError, match="expected above 0, 1 at most"):
        start(draft, ramp, 2)
    with pytest.raises(ExperimentError, match=r"expected above 0, 1 at most|a ramp only grows"):
        ramp_to(start(draft, 0.1, 2), ramp, 3)


def test_a_reason_of_any_length_stops_an_experiment_for_every_reader() -> None:
    topic, running = Topic(), start(asked("warmth")({}), 1.0, 2)
    topic.write([running, stop(running, "x" * 600, 3)])
    assert topic.known()["warmth"].status == "stopped"


def test_cohorts_stand_each_after_those_before_and_of_a_bandit_that_is_made_anew_they_begin_anew() -> None:
    topic, running = Topic(), start(asked("warmth")({}, bandit=Bandit(0.1, 60)), 0.25, 0)
    anew = msgspec.structs.replace(running, number=2)
    for setting, at_ms, count in ((running, 60_000, 1), (running, 120_000, 2), (anew, 60_000, 1), (anew, 120_000, 2)):
        made = next_cohort(setting, topic.read().get(Allocation, "warmth"), (0.3, 0.7), at_ms)
        assert made is not None
        topic.write([made])
        assert (topic.read().get(Allocation, "warmth"), len(made.cohorts)) == (made, count)
