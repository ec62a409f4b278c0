"""Changes of roles, and what speaks against a promotion."""

import json
import re
from collections.abc import Sequence

import msgspec
import pytest
from typer.testing import CliRunner

from scoring.evidence import Evidence
from streams.cli import app
from streams.control import Control
from streams.control_changes import after
from streams.control_wire import ControlMessage, ModelRoles, ModelStatus, PushedModel
from streams.models.roles import (
    CLICKS_MIN,
    OUTCOMES_MIN,
    Limits,
    Record,
    RolesError,
    objections,
    promoted,
    record_of,
    roles_told,
    rolled_back,
    settled,
    state_of,
    with_canary,
    with_shadow,
)
from streams.wire import encode_json
from tests.builders import START_MS
from tests.builders import Record as Kept
from tests.unit.consenting import told
from tests.unit.test_experiment_numbers import Topic

NEW, OTHER, FORMER = "new-00000001", "other-00000002", "former-00000003"
PUSHED = PushedModel(model=NEW, manifest="{}", bytes=1, parity=1e-6, score_ms=0.2, time_ms=1)


def status(lane: int = 0, **fields: object) -> ModelStatus:
    """A lane's word of a model that cost as much as what is live in every outcome."""
    told = {"model": NEW, "outcomes": 600, "clicks": 30, "predicted": 30.0, "log_loss": 100.0, "time_ms": 1}
    beside = {"beside": fields.get("outcomes", 600)} | dict.fromkeys(("beside_log_loss", "live_log_loss"), 0.0)
    return ModelStatus(lane=lane, worker="w", **(told | beside | fields))  # type: ignore[arg-type]  # by name


def test_a_model_goes_from_shadow_to_canary_to_live_and_back() -> None:
    roles = with_shadow(ModelRoles(), NEW, 0.2, 1)
    assert (roles.shadow, roles.shadow_share, state_of(roles, NEW)) == (NEW, 0.2, "shadow")
    roles = with_canary(roles, NEW, 0.1, 2)
    assert (roles.shadow, roles.shadow_share, roles.canary, roles.canary_share) == ("", 0.0, NEW, 0.1)
    roles = promoted(roles, NEW, 3, "it is better")
    assert (roles.live, roles.former, roles.canary, roles.reason) == (NEW, ("",), "", "it is better")
    assert not roles.forced
    roles = promoted(with_shadow(roles, OTHER, 0.5, 4), OTHER, 5)
    assert (roles.live, roles.former, state_of(roles, NEW)) == (OTHER, (NEW, ""), "former")
    roles = rolled_back(roles, 6, "it was not")
    assert (roles.live, roles.former, state_of(roles, OTHER)) == (NEW, ("",), "pushed")
    assert not roles.forced
    roles = rolled_back(roles, 7)
    assert (roles.live, roles.former, roles.revision) == ("", (), 7)
    with pytest.raises(RolesError, match="nothing to go back to"):
        rolled_back(roles, 8)
    with pytest.raises(RolesError, match=f"; salience model canary {NEW} --share 0 ends the canary"):
        rolled_back(with_canary(roles, NEW, 0.1, 8), 9)


def test_a_share_of_nothing_ends_a_shadow_and_a_canary_and_leaves_the_other() -> None:
    roles = with_canary(with_shadow(ModelRoles(), NEW, 0.2, 1), OTHER, 0.1, 2)
    assert (roles.shadow, roles.canary) == (NEW, OTHER)
    ended = with_shadow(roles, NEW, 0.0, 3)
    assert (ended.shadow, ended.shadow_share, ended.canary, ended.canary_share) == ("", 0.0, OTHER, 0.1)
    ended = with_canary(roles, OTHER, 0.0, 3)
    assert (ended.shadow, ended.shadow_share, ended.canary, ended.canary_share) == (NEW, 0.2, "", 0.0)


def test_a_share_of_nothing_takes_no_role_from_a_model_that_was_not_named_nor_another_role() -> None:
    roles = with_canary(with_shadow(ModelRoles(), NEW, 0.2, 1), OTHER, 0.1, 2)
    with pytest.raises(RolesError, match=f"{OTHER} is canary, and no shadow"):
        with_shadow(roles, OTHER, 0.0, 3)
    with pytest.raises(RolesError, match=f"{NEW} is shadow, and no canary"):
        with_canary(roles, NEW, 0.0, 3)
    with pytest.raises(RolesError, match="third-00000003 is pushed, and no canary"):
        with_canary(roles, "third-00000003", 0.0, 3)


def test_what_is_live_gets_no_other_role() -> None:
    roles = promoted(ModelRoles(), NEW, 1)
    for change in (with_shadow, with_canary):
        with pytest.raises(RolesError, match="is live already"):
            change(roles, NEW, 0.1, 2)
    with pytest.raises(RolesError, match="is live already"):
        promoted(roles, NEW, 2)


def test_no_more_promotions_are_remembered_than_can_be_taken_back() -> None:
    roles = ModelRoles()
    for number in range(12):
        roles = promoted(roles, f"m-{number:08x}", number)
    assert roles.former == tuple(f"m-{number:08x}" for number in range(10, 2, -1))


@pytest.mark.parametrize(
    "statuses",
    [
        [status(0), status(1)],
        [status(0, outcomes=OUTCOMES_MIN, clicks=CLICKS_MIN)],
        [status(0, outcomes=OUTCOMES_MIN, clicks=50, predicted=40.0)],
        [status(0, outcomes=OUTCOMES_MIN, clicks=40, predicted=50.0)],
    ],
    ids=["two lanes", "no more than is asked for", "as many clicks as may be", "as few"],
)
def test_nothing_speaks_against_a_model_with_outcomes_as_predicted(statuses: list[ModelStatus]) -> None:
    assert objections(PUSHED, Record.of(statuses), Limits()) == []


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [
        ([status(0, clicks=10), status(1, clicks=10)], "1,200 outcomes with 20 clicks"),
        ([status(0), status(1, predicted=60.0)], "clicks over predicted clicks are 0.667; expected 0.80 to 1.25"),
        ([status(0), status(1, predicted=10.0)], "clicks over predicted clicks are 1.500"),
        ([status(0, predicted=float("nan")), status(1)], "clicks over predicted clicks are nan"),
        ([status(0), status(1), status(2, refused="it is slow")], "lane 2 (w) refuses it: it is slow"),
    ],
)
def test_what_is_missing_speaks_against_a_model(statuses: list[ModelStatus], reason: str) -> None:
    (told,) = objections(PUSHED, Record.of(statuses), Limits())
    assert told.startswith(reason)


LIVE_LOSS = 0.14


def shadows(gain: float, spread: float, beside: int = 600, *, kept: bool = True) -> list[ModelStatus]:
    """Two lanes' word of a shadow that cost so much less an outcome, of which costs differ by ``spread``."""
    live, squares = LIVE_LOSS * beside, beside * (gain**2 + spread**2) if kept else 0.0
    costs = {"beside_log_loss": live - gain * beside, "live_log_loss": live, "gain_squares": squares}
    return [status(lane, beside=beside, **costs) for lane in (0, 1)]


@pytest.mark.parametrize(
    ("statuses", "refused"),
    [
        (shadows(-0.06, 0.3), True),
        (shadows(-0.06, 1.0), False),
        (shadows(-0.001, 0.01), False),
        (shadows(-0.0015, 0.001), True),
        (shadows(0.06, 0.3), False),
        (shadows(-0.06, 0.3, beside=400), False),
        (shadows(-0.06, 0.3, kept=False), False),
    ],
    ids=["surely worse", "it may be chance", "less than a hundredth", "more", "better", "of few", "former version"],
)
def test_a_shadow_that_is_surely_worse_than_what_is_live_is_not_promoted(
    statuses: list[ModelStatus], refused: bool
) -> None:
    told = objections(PUSHED, Record.of(statuses), Limits())
    assert ["of log loss more than what is live (standard error 0.0" in one for one in told if "it cost" in one] == (
        [True] * refused
    )


@pytest.mark.parametrize(("worse", "refused"), [(0.24, True), (0.25, False)])
def test_a_shadow_may_cost_as_large_a_share_more_as_is_allowed(worse: float, refused: bool) -> None:
    told = objections(PUSHED, Record.of(shadows(-0.06, 0.3)), Limits(worse=worse))
    assert ["expected at most 0.0336 more" in each for each in told] == [True] * refused


@pytest.mark.parametrize(
    ("option", "limit", "expected"),
    [
        ("--outcomes-min", "5000", "expected 5,000 with 30"),
        ("--clicks-min", "61", "expected 1,000 with 61"),
        ("--miscalibrated-max", "0.5", "expected 0.67 to 1.50"),
        ("--worse-max", "0.1", "expected at most 0.0140 more"),
    ],
)
def test_each_limit_of_a_promotion_may_be_another(
    monkeypatch: pytest.MonkeyPatch, option: str, limit: str, expected: str
) -> None:
    async def as_pushed(*_: object) -> list[str]:
        return []

    statuses = [msgspec.structs.replace(one, predicted=60.0) for one in shadows(-0.06, 0.3)]
    said, control = [PUSHED, with_shadow(ModelRoles(), NEW, 0.1, 1), *statuses], Control()
    control.take([told(one, at) for at, one in enumerate(said)])
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    monkeypatch.setattr("streams.models.desk.parity", as_pushed)
    usual, asked = (CliRunner().invoke(app, ["model", "promote", NEW, *more]) for more in ([], [option, limit]))
    assert (usual.exit_code, asked.exit_code) == (1, 1)
    assert (expected in usual.stderr, expected in asked.stderr) == (False, True)


def test_what_a_lane_of_a_former_version_held_against_another_counts_for_nothing() -> None:
    """It begins with the first outcome, when the click layer knows nothing of the shadow."""
    former = status(1, beside=5_000, beside_log_loss=770.0, live_log_loss=700.0)
    (new, _) = shadows(-0.001, 0.01)
    assert Record.of([new, former]).evidence.beside == new.beside
    (told,) = objections(PUSHED, Record.of([new, former]), Limits())
    assert told.startswith("600 of its 1,200 outcomes were compared with what is live; expected 1,000")


def test_what_lanes_told_of_a_model_before_it_lost_its_role_speaks_for_it_no_more() -> None:
    statuses = [status(0, refused="it is slow"), status(1)]
    roles = promoted(with_canary(ModelRoles(), NEW, 0.1, 1), NEW, 2)
    assert record_of(NEW, roles, (), statuses) == Record.of(statuses)
    assert record_of(NEW, promoted(roles, OTHER, 3), (), statuses) == Record.of(statuses)  # what it goes back to
    back = rolled_back(roles, 3)
    assert record_of(NEW, back, (), statuses) == Record.of([])
    assert record_of(NEW, back, (NEW,), statuses) == Record.of(statuses)
    told = objections(PUSHED, record_of(NEW, back, (), statuses), Limits())
    assert "0 outcomes with 0 clicks; expected 1,000 with 30 in a role that it has" in told[0]
    assert "An outcome counts when its window has ended" in told[0]


def test_a_record_is_of_one_model() -> None:
    roles = with_canary(ModelRoles(), NEW, 0.1, 1)
    assert record_of(NEW, roles, (), [status(0), status(1, model=OTHER)]) == Record.of([status(0)])


def test_outputs_that_are_not_the_golden_ones_speak_against_a_model() -> None:
    pushed = PushedModel(model=NEW, manifest="{}", bytes=1, parity=float("nan"), score_ms=0.2, time_ms=1)
    (told,) = objections(pushed, Record.of([status(0), status(1)]), Limits())
    assert told.startswith("its outputs differ")


def test_a_record_is_the_sum_of_its_lanes() -> None:
    record = Record.of(
        [
            status(0, beside=100, beside_log_loss=40.0, live_log_loss=50.0, gain_squares=2.0, difference=1.0),
            status(1, beside=0, candidates=400, difference=7.0, largest_difference=0.4),
        ]
    )
    assert record.evidence == Evidence(1_200, 60, 60.0, 200.0, 100, 40.0, 50.0, 2.0)
    assert record.calibration == pytest.approx(1.0)
    assert record.gain == pytest.approx(0.1)
    assert (record.candidates, record.mean_difference, record.largest_difference) == (400, 0.02, 0.4)
    nobody = Record.of([])
    assert (nobody.calibration, nobody.gain, nobody.mean_difference, nobody.largest_difference) == (None, None, 0, 0)


def topic_of(*messages: ControlMessage) -> Topic:
    topic = Topic()
    topic.write([*messages, *(msgspec.structs.replace(PUSHED, model=version) for version in (NEW, OTHER, FORMER))])
    return topic


def newest(topic: Topic) -> ModelRoles:
    """The roles that compaction leaves."""
    compacted = Topic()
    compacted.records = topic.records[-1:]
    return roles_told(compacted.read())


@pytest.mark.parametrize("before", [ModelRoles(), promoted(ModelRoles(), FORMER, 1)])
def test_of_two_changes_at_once_the_first_stands_for_every_reader_and_the_other_is_told(before: ModelRoles) -> None:
    topic = topic_of(before)
    first, second = promoted(before, NEW, 2, "it is better"), with_canary(before, OTHER, 0.1, 3)
    topic.write([first])
    with pytest.raises(RolesError, match=f"somebody else has changed roles meanwhile; live is {NEW}"):
        settled(second, topic.read, topic.write)
    assert first.repeats(roles_told(topic.read()))
    assert first.repeats(newest(topic))
    again = with_canary(roles_told(topic.read()), OTHER, 0.1, 4)
    assert settled(again, topic.read, topic.write) == again == newest(topic)
    assert (again.live, again.canary) == (NEW, OTHER)


def test_a_change_stands_though_another_that_does_not_was_written_after_it_by_who_was_killed() -> None:
    topic = topic_of()
    pushed = len(topic.records)
    first, second = promoted(ModelRoles(), NEW, 2), with_canary(ModelRoles(), OTHER, 0.1, 3)

    def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage]) -> None:
        topic.write(messages, gone)
        if len(topic.records) == pushed + 1:
            topic.write([second])

    assert first.repeats(settled(first, topic.read, write))
    assert first.repeats(newest(topic))


def test_two_who_make_what_stands_the_newest_at_once_do_so_once_each() -> None:
    topic = topic_of()
    first, second = promoted(ModelRoles(), NEW, 2), with_canary(ModelRoles(), OTHER, 0.1, 3)
    topic.write([first, second])
    written = len(topic.records)

    def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage]) -> None:
        topic.write([*messages, *messages], gone)

    assert first.repeats(roles_told(after(second, topic.read, write)))
    assert first.repeats(newest(topic))
    assert not topic.read().hidden(ModelRoles)
    assert len(topic.records) == written + 2


def test_who_wrote_what_another_has_changed_since_writes_nothing_more() -> None:
    topic = topic_of()
    first = promoted(ModelRoles(), NEW, 2)
    further = with_canary(first, OTHER, 0.1, 3)
    topic.write([first, further])
    written = len(topic.records)
    assert roles_told(after(first, topic.read, topic.write)) == further
    assert len(topic.records) == written


def test_changes_of_roles_by_who_tells_no_revision_stand_as_they_come() -> None:
    topic, former = topic_of(), msgspec.to_builtins(promoted(ModelRoles(), NEW, 1))
    del former["revision"]
    for live in (NEW, OTHER):
        value = msgspec.json.encode(former | {"live": live})
        topic.records.append(Kept("control", 0, len(topic.records), 1, b"model-roles/all", value))
    assert (roles_told(topic.read()).live, roles_told(topic.read()).revision) == (OTHER, 0)
    back = rolled_back(roles_told(topic.read()), 3)
    assert settled(back, topic.read, topic.write) == back == roles_told(topic.read())


def test_the_list_of_models_says_how_long_ago_lanes_told_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = [PUSHED, msgspec.structs.replace(PUSHED, model=OTHER, time_ms=2)]
    statuses = [
        status(0, time_ms=START_MS - 5_000),
        status(3, time_ms=START_MS - 7_200_000, refused="it is bad"),
    ]
    roles = with_canary(ModelRoles(), NEW, 0.1, 1)
    control = Control()
    control.take([Kept("control", 0, 0, START_MS, one.key, encode_json(one)) for one in (*pushed, roles, *statuses)])
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    monkeypatch.setattr("streams.cli.model.wall_ms", lambda: START_MS)

    listed = json.loads(CliRunner().invoke(app, ["model", "list", "--json"]).stdout)["models"]
    assert [one["told"] for one in listed] == [[{"lane": 3, "age_s": 7_200.0}, {"lane": 0, "age_s": 5.0}], []]

    people = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["model", "list"]).stdout
    assert re.search(rf"{NEW} .* 5 s ago, *\n *lane 3 2 h ago", people)
    assert f"{NEW} is refused by lane 3: it is bad" in people
    assert re.search(rf"{OTHER} .* never", people)


def test_the_list_of_models_tells_what_a_promotion_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    control.take([told(one, at) for at, one in enumerate([PUSHED, status(0, refused="it was slow"), status(1)])])
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    for roles, outcomes, refusals in ((None, 0, 0), (with_shadow(ModelRoles(), NEW, 0.1, 1), 1_200, 1)):
        if roles is not None:
            control.take([told(roles, 3)])
        (listed,) = json.loads(CliRunner().invoke(app, ["model", "list", "--json"]).stdout)["models"]
        assert (listed["outcomes"], len(listed["refusals"])) == (outcomes, refusals)


@pytest.mark.parametrize("field", ["outcomes", "clicks", "beside", "candidates", "lane"])
@pytest.mark.parametrize("number", [-1, 2**63, 10**400], ids=["below 0", "64 bits", "endless"])
def test_a_status_with_a_number_that_nothing_counts_to_is_refused_and_models_are_listed_without_it(
    monkeypatch: pytest.MonkeyPatch, field: str, number: int
) -> None:
    fields = {"lane": 0, "worker": "w", "log_loss": 1.0, "time_ms": START_MS} | {field: number}
    bad = json.dumps({"kind": "model-status", "model": NEW, **fields})
    control = Control()
    key = f"model-status/{NEW}/{fields['lane']}".encode()
    assert control.take([told(PUSHED, 0), Kept("control", 0, 1, START_MS, key, bad.encode())]) == 1
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    (listed,) = json.loads(CliRunner().invoke(app, ["model", "list", "--json"]).stdout)["models"]
    assert (listed["model"], listed["lanes"]) == (NEW, 0)


@pytest.mark.parametrize("revision", [-1, 2**63])
def test_roles_of_a_revision_that_nobody_counts_to_are_refused(revision: int) -> None:
    control = Control()
    assert control.take([told(ModelRoles(revision=revision), 0)]) == 1
    assert control.get(ModelRoles, "all") is None


def test_a_share_that_is_no_number_is_refused_and_ends_nothing() -> None:
    roles = with_canary(ModelRoles(), NEW, 0.1, 1)
    for share in (float("nan"), -0.1, 1.1):
        for change in (with_canary, with_shadow):
            with pytest.raises(RolesError, match=r"a share of .*; expected 0 to 1"):
                change(roles, NEW, share, 2)


def test_a_share_that_is_small_is_not_shown_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    control.take([told(PUSHED, 0), told(with_canary(ModelRoles(), NEW, 0.004, 1), 1)])
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    people = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["model", "list"]).stdout
    assert "0.4%" in people
