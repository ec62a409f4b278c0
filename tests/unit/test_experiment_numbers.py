"""Experiments that are made at once: each gets a number and a range of its own, and none ends another."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from scoring.policies import EXPERIMENTS_MAX, LAYERS_MAX, Experiments
from streams.cli import app
from streams.control import UPTO, Control
from streams.control_changes import TRIES_MAX
from streams.control_wire import Allocation, ArmSetting, CohortSetting, ControlMessage, ExperimentSetting
from streams.experiments.changes import settled
from streams.experiments.referee import Referee
from streams.experiments.registry import ExperimentError, ExperimentSwitch, create, objections, start, stop
from streams.experiments.store import load, save
from streams.wire import encode_json
from tests.builders import Record


def arms(change: str, value: float) -> tuple[ArmSetting, ...]:
    return (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="other", share=0.5, changes={change: value}))


def asked(
    name: str, change: str = "temperature", value: float = 0.3, layer: str = "ranking", width: float = 0.5
) -> partial[ExperimentSetting]:
    return partial(
        create,
        name=name,
        arms=arms(change, value),
        layer=layer,
        width=width,
        primary="ctr",
        guardrails=(),
        time_ms=1,
    )


class Topic:
    """The control topic, which every command reads whole."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()) -> None:
        for message in messages:
            self._append(message.key, encode_json(message))
        for message in gone:
            self._append(message.key, None, (UPTO, str(message.sequence).encode()))

    def _append(self, key: bytes, value: bytes | None, *headers: tuple[str, bytes]) -> None:
        self.records.append(Record("control", 0, len(self.records), 1, key, value, headers))

    def read(self) -> Control:
        control = Control()
        control.take(self.records)
        return control

    def known(self) -> dict[str, ExperimentSetting]:
        return dict(Topic.read(self).all(ExperimentSetting))


def test_drafts_that_are_made_at_once_get_numbers_and_ranges_of_their_own() -> None:
    topic, names = Topic(), ("warmth", "heat", "keen")
    drafts = {name: asked(name, width=0.3) for name in names}
    made = {name: drafts[name](topic.known()) for name in names}  # all read before any writes
    for one in made.values():
        topic.write([one])
    for name in reversed(names):
        made[name] = settled(drafts[name], made[name], topic.read, topic.write)
    assert topic.known() == made
    assert sorted(one.number for one in made.values()) == [1, 2, 3]
    assert len({one.low for one in made.values()}) == 3
    assert made["warmth"].number == 1  # who was first keeps it


def test_a_draft_yields_to_one_that_was_started_meanwhile() -> None:
    topic = Topic()
    first, second = asked("warmth")({}), asked("heat")({})
    topic.write([first, second, start(first, 1.0, 2)])
    assert settled(asked("heat"), second, topic.read, topic.write).number == 2


def test_a_draft_for_which_another_left_no_room_is_taken_back() -> None:
    topic = Topic()
    first, second = asked("warmth", width=0.8)({}), asked("heat", width=0.8)({})
    topic.write([first, second])
    with pytest.raises(ExperimentError, match=r"no 0\.800 of the layer is free"):
        settled(asked("heat", width=0.8), second, topic.read, topic.write)
    assert topic.known() == {"warmth": first}


def test_a_draft_that_others_always_overtake_is_taken_back() -> None:
    topic = Topic()
    made = asked("warmth", width=0.01)({})
    topic.write([made])
    number = iter(range(1, 100))

    def read() -> Control:
        first = msgspec.structs.replace(made, experiment=f"o{next(number)}", status="running", number=next(number))
        crowded = Topic()
        crowded.write([first])
        crowded.records += topic.records
        return crowded.read()

    with pytest.raises(ExperimentError, match="others make experiments all the time"):
        settled(asked("warmth", width=0.01), made, read, topic.write)
    assert len(topic.records) == 1 + TRIES_MAX + 1
    assert topic.known() == {}


def test_an_experiment_with_the_number_of_another_ends_it_nowhere_and_runs_when_that_has_ended() -> None:
    first, second = asked("warmth")({}), asked("fewer", "slots", 5, layer="size")({})
    assert first.number == second.number
    experiments, referee = Experiments(), Referee()
    switch = ExperimentSwitch(experiments)

    def follow(setting: ExperimentSetting) -> list[str]:
        switch.follow(setting.experiment, setting)
        if (setting.experiment, setting.number) == ("fewer", 1):
            with pytest.raises(ValueError, match="its number 1 is that of warmth"):
                referee.follow(setting)
        else:
            referee.follow(setting)
        name = experiments.name_of(1)
        assert name is None or referee.watched[1].setting.experiment == "warmth"
        return [] if name is None else [name]

    assert follow(start(first, 1.0, 2)) == ["warmth"]
    assert follow(second) == ["warmth"]
    assert follow(start(second, 1.0, 3)) == ["warmth"]
    referee.allocate(
        Allocation(experiment="fewer", number=1, cohorts=(CohortSetting(upto=1.0, shares=(0.9, 0.1)),), time_ms=4)
    )
    assert referee.watched[1].allocation is None
    assert follow(stop(first, "", 5)) == ["fewer"]
    assert follow(stop(second, "", 6)) == []
    assert follow(start(first, 1.0, 7)) == ["warmth"]
    assert follow(msgspec.structs.replace(start(second, 1.0, 8), number=2)) == ["warmth"]
    assert experiments.name_of(2) == "fewer"
    switch.follow("warmth", None)
    assert (experiments.name_of(1), len(experiments)) == (None, 1)


WORDS = (
    "its number 1 is that of warmth, and placements' ids tell numbers alone: nobody judges it; "
    "make it anew under another name: salience experiment create"
)


@pytest.mark.parametrize("over", [False, True])
def test_a_draft_with_the_number_of_another_is_not_started_and_the_command_tells_what_to_do(
    over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic()
    first, second = asked("warmth")({}), asked("fewer", "slots", 5, layer="size")({})
    topic.write([first, second, start(first, 1.0, 2), *([stop(first, "", 3)] if over else [])])
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _: topic.read())
    monkeypatch.setattr("streams.cli.experiment._write", lambda _, messages, gone=(): topic.write(messages, gone))

    told = CliRunner().invoke(app, ["experiment", "start", "fewer"], env={"COLUMNS": "400"})

    assert (told.exit_code, topic.known()["fewer"]) == (1, second)
    assert f"fewer: {WORDS}" in told.output


def test_a_number_that_another_was_started_with_and_no_other_speaks_against_a_draft() -> None:
    topic = Topic()
    first, twin = asked("warmth")({}), asked("fewer", "slots", 5, layer="size")({})
    beside = asked("heat")({"warmth": first})
    topic.write([first, twin, beside])
    assert [objections(each, topic.read()) for each in (first, twin, beside)] == [[], [], []]
    topic.write([start(first, 1.0, 2)])
    assert [objections(each, topic.read()) for each in (twin, beside)] == [[WORDS], []]


def test_an_experiment_that_is_made_anew_under_its_name_ends_the_one_before() -> None:
    experiments, former = Experiments(), start(asked("warmth")({}), 1.0, 2)
    switch = ExperimentSwitch(experiments)
    switch.follow("warmth", former)
    switch.follow("warmth", msgspec.structs.replace(former, number=2))
    assert [experiments.name_of(number) for number in (1, 2)] == [None, "warmth"]


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("restart", ["none", "with its file", "without its file"])
def test_a_referee_refuses_a_number_twice_in_the_commands_words_whenever_it_was_started(
    over: bool, restart: str, tmp_path: Path
) -> None:
    first, second = (start(one, 1.0, 2) for one in (asked("warmth")({}), asked("fewer", "slots", 5, layer="size")({})))
    ended = [stop(first, "", 3)] if over else []
    referee = Referee()
    for setting in (first, *ended):
        referee.follow(setting)
    if restart != "none":
        save(tmp_path / "x.npz", referee, {}, {})
        referee = Referee()
        if restart == "with its file":
            load(tmp_path / "x.npz", referee)
        for setting in ended or [first]:  # compaction left the newest
            referee.follow(setting)
    for _ in range(2):
        with pytest.raises(ValueError, match=WORDS):
            referee.follow(second)


def test_a_worker_tells_what_to_do_about_a_number_that_is_anothers() -> None:
    first, second = (start(one, 1.0, 2) for one in (asked("warmth")({}), asked("fewer", "slots", 5, layer="size")({})))
    switch = ExperimentSwitch(Experiments())
    switch.follow("warmth", first)
    with capture_logs() as said:
        switch.follow("fewer", second)
    assert [one["error"] for one in said] == [f"{WORDS}; it waits until that has ended"]


def test_there_are_no_more_layers_than_an_id_has_room_for_whether_one_is_drafted_or_started() -> None:
    alike = (ArmSetting(arm="a", share=0.5), ArmSetting(arm="b", share=0.5))  # or layers would change the same
    known: dict[str, ExperimentSetting] = {}
    for at in range(LAYERS_MAX):
        known[f"e{at}"] = asked(f"e{at}", layer=f"layer-{at}")(known, arms=alike)
    late = partial(asked("late", layer="one-more"), arms=alike)
    with pytest.raises(ExperimentError, match=f"{LAYERS_MAX} layers at most"):
        late(known)
    running = [start(one, None, 2) for one in known.values()]
    with pytest.raises(ExperimentError, match=f"{LAYERS_MAX} layers at most"):
        start(late({}), None, 2, running)
    assert start(late({}), None, 2, running[1:]).status == "running"


def test_no_more_experiments_are_started_than_workers_run_at_once() -> None:
    known: dict[str, ExperimentSetting] = {}
    for at in range(EXPERIMENTS_MAX + 1):
        made = asked(f"x{at}", width=1 / (EXPERIMENTS_MAX + 1))(known)
        known[made.experiment] = made if at == EXPERIMENTS_MAX else start(made, 1.0, 2, known.values())
    one_more = known[f"x{EXPERIMENTS_MAX}"]
    with pytest.raises(
        ExperimentError, match=r"100 experiments run, .* 100 at most; stop one first: salience experiment stop"
    ):
        start(one_more, 1.0, 3, known.values())
    known["x7"] = stop(known["x7"], "enough", 3)
    known[one_more.experiment] = start(one_more, 1.0, 4, known.values())
    experiments = Experiments()
    switch = ExperimentSwitch(experiments)
    for name, setting in known.items():
        switch.follow(name, setting)
    assert [setting.number for setting in known.values() if experiments.name_of(setting.number) is None] == [8]
