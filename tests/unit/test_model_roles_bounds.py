"""Changes of roles at their bounds: what they say of themselves, and models that are removed meanwhile."""

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from scoring.attention import GOLDEN_TOLERANCE, AttentionModel
from scoring.models import Models, Roles, Served
from streams.control_wire import ModelRoles, ModelStatus, PushedModel
from streams.models.roles import (
    CLICKS_MIN,
    OUTCOMES_MIN,
    Limits,
    Record,
    RolesError,
    objections,
    promoted,
    roles_of,
    roles_told,
    rolled_back,
    settled,
    with_canary,
    with_shadow,
)
from tests.builders import catalogue
from tests.unit.test_experiment_numbers import Topic
from tests.unit.test_model_roles import FORMER, NEW, OTHER, PUSHED, status, topic_of


def test_a_change_says_when_and_why_it_was_made_and_whether_by_force() -> None:
    roles = promoted(ModelRoles(), NEW, 5, "x" * 600, forced=True)
    assert (roles.time_ms, roles.reason, roles.forced, roles.revision) == (5, "x" * 512, True, 1)
    assert msgspec.json.decode(msgspec.json.encode(roles), type=ModelRoles) == roles
    further = with_shadow(roles, OTHER, 0.1, 6)
    assert (further.time_ms, further.reason, further.forced, further.revision) == (6, "", False, 2)


def test_going_back_ends_canary_and_shadow() -> None:
    roles = with_canary(with_shadow(promoted(ModelRoles(), NEW, 1), OTHER, 0.2, 2), FORMER, 0.1, 3)
    back = rolled_back(roles, 4, "it was not")
    assert back == ModelRoles(revision=4, time_ms=4, reason="it was not")


def test_a_promotion_leaves_others_their_roles() -> None:
    roles = with_canary(with_shadow(ModelRoles(), NEW, 0.2, 1), OTHER, 0.1, 2)
    live = promoted(roles, NEW, 3)
    assert (live.shadow, live.shadow_share, live.canary, live.canary_share) == ("", 0.0, OTHER, 0.1)
    live = promoted(roles, OTHER, 3)
    assert (live.shadow, live.shadow_share, live.canary, live.canary_share) == (NEW, 0.2, "", 0.0)


def test_a_model_may_have_a_role_for_everybody_and_leaves_its_former_one() -> None:
    canary = with_canary(ModelRoles(), NEW, 1.0, 1)
    shadow = with_shadow(canary, NEW, 1.0, 2)
    assert (shadow.canary, shadow.canary_share, shadow.shadow, shadow.shadow_share) == ("", 0.0, NEW, 1.0)
    again = with_canary(shadow, NEW, 1.0, 3)
    assert (again.canary, again.canary_share, again.shadow, again.shadow_share) == (NEW, 1.0, "", 0.0)


def test_workers_play_what_the_message_says() -> None:
    message = ModelRoles(
        live=NEW, former=(OTHER, ""), canary=FORMER, canary_share=0.1, shadow="s-00000004", shadow_share=0.25
    )
    assert roles_of(message, ("arm-00000005",)) == Roles(
        NEW, (OTHER, ""), FORMER, 0.1, "s-00000004", 0.25, ("arm-00000005",)
    )


def test_a_worker_holds_each_model_that_has_a_role_once_and_of_those_before_only_the_one_to_fall_back_to() -> None:
    roles = Roles(
        live=NEW, former=(OTHER, FORMER), canary="c-00000003", shadow="s-00000004", arms=("a-00000005", OTHER)
    )
    assert roles.versions == (NEW, OTHER, "c-00000003", "s-00000004", "a-00000005")
    assert Roles(former=("", FORMER)).versions == ()


def test_a_shadow_that_answers_for_a_model_that_is_refused_is_not_compared_with_itself() -> None:
    """It would cost as much as what is live in every outcome, and be promoted for that."""
    models = Models(Served(cast(AttentionModel, SimpleNamespace(version=FORMER)), catalogue(1)))
    models.hold(cast(AttentionModel, SimpleNamespace(version=OTHER)))
    roles = Roles(live=NEW, former=(OTHER,), shadow=OTHER, shadow_share=1.0)
    models.refuse(NEW, "it is slow")
    models.play(roles)
    assert (models.live.version, models.shadow) == (OTHER, None)
    models.hold(cast(AttentionModel, SimpleNamespace(version=NEW)))
    models.play(roles)
    assert models.live.version == NEW
    assert models.shadow is not None
    assert models.shadow.version == OTHER


def test_outputs_as_far_from_the_golden_ones_as_may_be_speak_for_a_model() -> None:
    record = Record.of([status(0, outcomes=OUTCOMES_MIN, clicks=CLICKS_MIN)])
    for parity, count in ((GOLDEN_TOLERANCE, 0), (GOLDEN_TOLERANCE * 1.001, 1)):
        assert len(objections(msgspec.structs.replace(PUSHED, parity=parity), record, Limits())) == count


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outcomes": OUTCOMES_MIN - 1}, "999 outcomes with 30 clicks"),
        ({"clicks": CLICKS_MIN - 1}, "1,000 outcomes with 29 clicks"),
        ({"predicted": 0.0}, "clicks over predicted clicks are none; expected 0.80 to 1.25"),
        ({"predicted": 30 / 0.79}, "clicks over predicted clicks are 0.790"),
        ({"predicted": 30 / 1.26}, "clicks over predicted clicks are 1.260"),
    ],
)
def test_one_too_few_or_a_little_too_far_speaks_against_a_model(fields: dict[str, float], reason: str) -> None:
    told = {"outcomes": OUTCOMES_MIN, "clicks": CLICKS_MIN} | fields
    (found,) = objections(PUSHED, Record.of([status(0, beside=OUTCOMES_MIN, **told)]), Limits())
    assert found.startswith(reason)


@pytest.mark.parametrize(("gain", "count"), [(-0.0029, 0), (-0.0031, 1)])
def test_what_a_shadow_may_cost_is_a_share_of_what_the_live_model_cost_over_the_same_outcomes(
    gain: float, count: int
) -> None:
    """It is compared over fewer outcomes than it has had: those since it was known, and before it was a canary."""
    compared, live = 2_000, 0.3
    told = {
        "beside": compared,
        "beside_log_loss": compared * (live - gain),
        "live_log_loss": compared * live,
        "gain_squares": compared * gain**2,  # so that the standard error is 0
    }
    record = Record.of([status(0, outcomes=40_000, clicks=1_000, predicted=1_000.0, **told)])
    assert len(objections(PUSHED, record, Limits())) == count


@pytest.mark.parametrize(
    ("statuses", "outcomes", "compared"),
    [
        ([], "0 outcomes with 0 clicks; expected 1,000 with 30", "0 of its 0 outcomes"),
        ([status(0)], "600 outcomes with 30 clicks", "600 of its 600 outcomes"),
    ],
)
def test_of_few_outcomes_few_are_compared_which_is_told_too(
    statuses: list[ModelStatus], outcomes: str, compared: str
) -> None:
    first, second = objections(PUSHED, Record.of(statuses), Limits())
    assert (first.startswith(outcomes), second.startswith(compared)) == (True, True)


def test_lanes_that_refuse_are_told_in_their_order_and_when_each_told_it() -> None:
    lanes = [status(lane, refused=f"reason {lane}", time_ms=lane + 1) for lane in (7, 0, 3)]
    record = Record.of([*lanes, status(5, outcomes=OUTCOMES_MIN, time_ms=9)])
    assert [each.split(" ")[1] for each in objections(PUSHED, record, Limits())] == ["0", "3", "7"]
    assert record.told_ms == {7: 8, 0: 1, 3: 4, 5: 9}
    assert record.lanes == 4


@pytest.mark.parametrize("role", ["live", "canary", "shadow"])
def test_who_gives_a_role_to_a_model_that_was_removed_meanwhile_is_told_so(role: str) -> None:
    topic = Topic()
    made = msgspec.structs.replace(ModelRoles(), revision=1, **{role: NEW})
    with pytest.raises(RolesError, match=f"{NEW} was removed meanwhile"):
        settled(made, topic.read, topic.write)


def test_a_model_that_was_live_before_and_is_gone_keeps_no_change_from_being_made() -> None:
    topic = Topic()
    topic.write([PUSHED])
    made = ModelRoles(live=NEW, former=(FORMER,), revision=1)
    assert settled(made, topic.read, topic.write) == made


def test_whose_change_came_second_is_told_what_is_live_though_it_is_the_workers_own() -> None:
    topic = topic_of()
    first, second = with_shadow(ModelRoles(), NEW, 0.1, 1), with_canary(ModelRoles(), OTHER, 0.1, 1)
    topic.write([first])
    with pytest.raises(RolesError, match="live is the workers' own"):
        settled(second, topic.read, topic.write)
    assert first.repeats(roles_told(topic.read()))
    assert topic.read().get(PushedModel, NEW) == PUSHED


def test_the_difference_over_a_single_candidate_is_its_own() -> None:
    record = Record.of([status(0, candidates=1, difference=0.25, largest_difference=0.25)])
    assert (record.candidates, record.mean_difference, record.largest_difference) == (1, 0.25, 0.25)
