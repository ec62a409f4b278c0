"""Experiments from the control topic to the verdict: changes, what the referee makes of the topics, and reports."""

import msgspec
import numpy as np
import pytest

from scoring.assignment import OUTSIDE
from scoring.ids import id64s
from scoring.policies import Experiments, Policy
from scoring.rows import ROW
from streams.control import Control
from streams.control_wire import ArmSetting, ExperimentSetting, Guardrail, ModelStatus, PushedModel
from streams.experiments.findings import trial_finding
from streams.experiments.referee import Referee
from streams.experiments.registry import (
    MODELS_MAX,
    Bandit,
    ExperimentError,
    ExperimentSwitch,
    create,
    definition,
    models_of,
    next_cohort,
    objections,
    ramp_to,
    start,
    stop,
)
from streams.experiments.report import breached, decode_report, encode_report, report
from streams.experiments.store import StoreError, load, save
from streams.wire import encode_json
from tests.builders import Record
from tests.unit.showing import placed, see

ARMS = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="warmer", share=0.5, changes={"temperature": 0.3}))
RAIL = Guardrail(metric="ctr", most_loss=0.1)


def draft(known=None, name="warmth", **fields):
    given = {"layer": "ranking", "width": 0.5, "primary": "ctr", "guardrails": (RAIL,), "time_ms": 1} | fields
    return create(known or {}, name, given.pop("arms", ARMS), **given)


def test_drafts_of_one_layer_have_ranges_and_numbers_of_their_own():
    first = draft()
    second = draft({"warmth": first}, "width")
    assert (first.low, first.high, second.low, second.high) == (0, 0.5, 0.5, 1)
    assert (first.number, second.number) == (1, 2)
    with pytest.raises(ExperimentError, match=r"no 0.500 of the layer is free"):
        draft({"warmth": first, "width": second}, "third")
    assert draft({"warmth": stop(first, "", 2), "width": second}, "third").low == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "War mth"}, "Expected `str` matching regex"),
        ({"arms": ARMS[:1]}, "two or more arms"),
        (
            {"arms": (ARMS[0], ArmSetting(arm="hot", share=0.5, changes={"temperature": 11.0}))},
            "expected 0 to 10",
        ),
        (
            {"arms": (ARMS[0], ArmSetting(arm="lucky", share=0.5, changes={"explore": "luck"}))},
            "explore 'luck'; expected one of plackett-luce, thompson, linucb",
        ),
        (
            {"arms": (ARMS[0], ArmSetting(arm="bold", share=0.5, changes={"explore": "linucb", "ucb_alpha": 11.0}))},
            "expected 0 to 10",
        ),
        ({"arms": (ARMS[0], ArmSetting(arm="free", share=0.5, changes={"control_share": 0.0}))}, "cannot change"),
        ({"primary": "clicks"}, "Invalid enum value 'clicks'"),
        ({"guardrails": (Guardrail(metric="ctr", most_loss=2.0),)}, "<= 1"),
    ],
)
def test_a_draft_that_cannot_run_is_refused_with_the_reason(fields, message):
    with pytest.raises(ExperimentError, match=message):
        draft(**fields)


def by_models(*versions: str) -> tuple[ArmSetting, ...]:
    return tuple(ArmSetting(arm=f"arm-{at}", share=0.5, model=version) for at, version in enumerate(versions))


def test_an_arm_names_a_model_that_is_on_the_topic_and_that_no_lane_refuses_now():
    made = draft(arms=by_models("", "new-00c0ffee"))
    assert definition(made).arms[1].model == "new-00c0ffee"
    control = Control()
    assert (
        "there is no model 'new-00c0ffee'; there are: none; push it: salience model push"
        in objections(made, control)[0]
    )
    pushed = PushedModel(model="new-00c0ffee", manifest="{}", bytes=1, parity=0.0, score_ms=0.1, time_ms=1)
    refusal = ModelStatus(lane=3, model="new-00c0ffee", worker="w", refused="it is bad", time_ms=1)
    said = []
    for offset, message in enumerate((pushed, refusal, made)):  # until then no lane has it, and what it said is old
        control.take([Record("control", 0, offset, 1, message.key, encode_json(message))])
        said.append(objections(made, control))
    assert said == [[], [], ["lane 3 (w) refuses new-00c0ffee: it is bad"]]
    with pytest.raises(ExperimentError, match="matching regex"):
        draft(arms=by_models("", "no version"))


def test_workers_hold_the_models_of_drafts_and_of_what_runs_and_no_more_than_their_bound():
    first = draft(arms=by_models("", "b-00c0ffee"))
    second = draft({"warmth": first}, "width", arms=by_models("a-00c0ffee", "b-00c0ffee"))
    assert models_of([first, second]) == ("a-00c0ffee", "b-00c0ffee")
    assert models_of([first, stop(second, "", 2)]) == ("b-00c0ffee",)
    many = tuple(
        ArmSetting(arm=f"arm-{at}", share=1 / (MODELS_MAX + 1), model=f"m{at}-00c0ffee") for at in range(MODELS_MAX + 1)
    )
    with pytest.raises(ExperimentError, match=f"{MODELS_MAX} models at most"):
        draft(arms=many)


def test_what_an_experiment_changes_no_other_layer_changes_at_the_same_time():
    first = draft()
    with pytest.raises(ExperimentError, match="warmth in layer ranking changes temperature too"):
        draft({"warmth": first}, "heat", layer="other")
    assert draft({"warmth": stop(first, "", 2)}, "heat", layer="other").layer == "other"
    assert draft({"warmth": first}, "who", layer="other", arms=by_models("", "b-00c0ffee")).layer == "other"


BANDIT = Bandit(minimum=0.1, epoch_s=60)


@pytest.mark.parametrize(
    ("bandit", "message"),
    [
        (Bandit(0.5, 60), "below 0.5, which leaves the bandit nothing"),
        (Bandit(0.099, 60), "expected 0.1 at least"),
        (Bandit(0.1, 0), "epoch of 0 s; expected 1 at least"),
    ],
)
def test_a_bandit_that_cannot_learn_or_choose_is_refused(bandit, message):
    with pytest.raises(ExperimentError, match=message):
        draft(bandit=bandit)
    with pytest.raises(ExperimentError, match="an arm begins with less than the minimum"):
        draft(bandit=BANDIT, arms=(ArmSetting(arm="a", share=0.05), ArmSetting(arm="b", share=0.95)))


def test_a_bandit_lets_in_a_cohort_an_epoch_until_all_have_come_and_its_ramp_is_its_own():
    made = draft(bandit=BANDIT)
    with pytest.raises(ExperimentError, match="of a bandit it is the size of each of its cohorts"):
        start(made, 0.001, 2)
    with pytest.raises(ExperimentError, match="below 1, which leaves nobody to share out"):
        start(made, 1.0, 2)
    assert (start(made, None, 2).ramp, start(draft(), None, 2).ramp) == (0.1, 1.0)
    running = start(made, 0.4, 1_000)
    with pytest.raises(ExperimentError, match="its referee lets in a cohort every 60 s"):
        ramp_to(running, 0.5, 3)
    assert next_cohort(running, None, (0.3, 0.7), 60_999) is None
    second = next_cohort(running, None, (0.3, 0.7), 61_000)
    assert next_cohort(running, second, (0.2, 0.8), 120_999) is None
    third = next_cohort(running, second, (0.2, 0.8), 121_000)
    assert [one.upto for one in third.cohorts] == [0.8, 1.0]
    assert third.cohorts[0] == second.cohorts[0]
    assert next_cohort(running, third, (0.5, 0.5), 10**9) is None
    assert next_cohort(stop(running, "", 2_000), second, (0.2, 0.8), 10**9) is None
    assert definition(running, third).shares.tolist() == [[0.5, 0.5], [0.3, 0.7], [0.2, 0.8]]
    another = msgspec.structs.replace(running, number=2)  # made anew under the same name
    assert definition(another, third).shares.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("cohorts_first", [False, True])
def test_an_engine_follows_cohorts_whichever_message_comes_first(cohorts_first):
    experiments = Experiments()
    switch = ExperimentSwitch(experiments)
    setting = start(draft(bandit=BANDIT, width=1.0), 0.5, 1_000)
    cohorts = next_cohort(setting, None, (0.1, 0.9), 10**6)
    steps = [lambda: switch.follow("warmth", setting), lambda: switch.allocate("warmth", cohorts)]
    for step in steps[::-1] if cohorts_first else steps:
        step()
    users = np.random.default_rng(1).integers(0, 2**64, 4_000, dtype=np.uint64)
    groups = {group.arm: group for group in experiments.groups(users, Policy(control_share=0.0))}
    assert "engine" not in groups
    assert set(groups["warmth/warmer"].chance.tolist()) == {0.5, 0.9}
    switch.follow("warmth", stop(setting, "", 2_000))
    switch.allocate("warmth", cohorts)
    assert len(experiments) == 0


def test_an_experiment_goes_from_draft_to_running_to_stopped_and_its_ramp_only_grows():
    running = start(draft(), 0.1, 2)
    assert ramp_to(running, 0.4, 3).ramp == 0.4
    assert ramp_to(running, 0.1, 3).ramp == 0.1
    with pytest.raises(ExperimentError, match="a ramp only grows"):
        ramp_to(ramp_to(running, 0.4, 3), 0.2, 4)
    with pytest.raises(ExperimentError, match="only a draft can be started"):
        start(running, 0.1, 3)
    ended = stop(running, "enough", 5)
    with pytest.raises(ExperimentError, match="stopped already: enough"):
        stop(ended, "", 6)
    with pytest.raises(ExperimentError, match="start it first"):
        ramp_to(ended, 1.0, 6)


def test_an_engine_follows_what_the_control_topic_says_and_refuses_what_cannot_run():
    experiments = Experiments()
    switch = ExperimentSwitch(experiments)
    setting = draft()
    switch.follow("warmth", setting)
    assert len(experiments) == 0
    switch.follow("warmth", start(setting, 1.0, 2))
    assert len(experiments) == 1
    broken = msgspec.structs.replace(start(setting, 1.0, 2), number=9, experiment="broken", high=0.0)
    switch.follow("broken", broken)
    assert len(experiments) == 1
    switch.follow("warmth", stop(start(setting, 1.0, 2), "", 3))
    assert len(experiments) == 0
    switch.follow("warmth", start(setting, 1.0, 4))
    switch.follow("warmth", None)
    assert len(experiments) == 0


def shown(user: int, arm: int, time_ms: int, *, number: int = 1, ad: str = "ad-1") -> bytes:
    told = {"event_id": f"{user:x}-{time_ms}", "user_id": f"u{user}", "ad_id": ad}
    return encode_json(told | {"time_ms": time_ms, "placement_id": placed(f"u{user}", (number, arm))})


def row(time_ms: int, impressions: int, clicks: int) -> np.ndarray:
    made = np.zeros(1, dtype=ROW)
    made["time_ms"], made["impressions"], made["answered_clicks"] = time_ms, impressions, clicks
    return made


def running(**fields) -> ExperimentSetting:
    return start(draft(**fields), 1.0, 1)


def test_a_user_counts_from_the_row_that_holds_the_exposure_and_what_came_before_does_not():
    referee = Referee()
    referee.follow(running())
    referee.take_rows([b"u1"], row(10, 1, 0))
    referee.take_rows([b"u1"], row(20, 5, 4))
    see(referee, [shown(1, 1, 30)])
    referee.take_rows([b"u1"], row(25, 6, 4))  # an older slice's row: the exposure is not in it yet
    assert referee.watched[1].trial.arm[:1].tolist() in ([], [OUTSIDE])
    referee.take_rows([b"u1"], row(30, 7, 5))
    (watched,) = referee.look()
    assert watched.last.users.tolist() == [0, 1]
    assert watched.last.values["ctr"][1] == 1.0  # one impression and one click since


def test_a_user_whose_past_was_not_seen_counts_from_their_first_row():
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 0, 30)])
    referee.take_rows([b"u1"], row(40, 500, 400))
    referee.take_rows([b"u1"], row(50, 510, 401))
    (watched,) = referee.look()
    assert watched.last.values["ctr"][0] == pytest.approx(0.1)


def test_changes_of_category_are_the_diversity_of_what_was_shown():
    referee = Referee()
    referee.take_ads([(b"ad-1", b'{"category": "shoes/red"}'), (b"ad-2", b'{"category": "hats"}'), (b"ad-3", b"{")])
    referee.follow(running())
    referee.take_rows([b"u1"], row(1, 1, 0))
    shows = [shown(1, 0, at, ad=ad) for at, ad in enumerate(("ad-1", "ad-2", "ad-2", "x"), start=10)]
    referee.take_rows([b"u1"], row(9, 2, 0))
    see(referee, shows[:1])
    referee.take_rows([b"u1"], row(10, 3, 0))
    see(referee, [*shows[1:], b"{", None])
    referee.take_rows([b"u1"], row(13, 6, 0))
    (watched,) = referee.look()
    assert watched.last.values["diversity"][0] == pytest.approx(1 / 4)  # one change in four impressions
    assert referee.malformed == 2


def test_users_beyond_the_bound_count_nowhere_and_are_counted():
    referee = Referee(users_max=2)
    referee.follow(running())
    see(referee, [shown(user, 0, 5) for user in range(4)])
    assert (referee.people.number, referee.people.unwatched) == (2, 2)


def played(seed: int, *, users: int = 400, rates=(0.5, 0.2)) -> Referee:
    referee, draw = Referee(), np.random.default_rng(seed)
    referee.follow(running())
    arms = draw.integers(0, 2, users)
    names = [f"u{user}".encode() for user in range(users)]
    referee.take_rows(names, np.concatenate([row(1, 1, 0)] * users))
    see(referee, [shown(user, int(arms[user]), 10) for user in range(users)])
    for at in range(1, 4):
        rows = np.concatenate([row(10 * at, 1 + 10 * at, 0)] * users)
        rows["answered_clicks"] = 0 if at == 1 else draw.binomial(10 * (at - 1), np.array(rates)[arms])
        referee.take_rows(names, rows)
    return referee


def test_an_arm_that_loses_more_than_a_guardrail_allows_ends_the_experiment():
    (watched,) = played(1).look()
    why = breached(watched.setting, watched.last)
    assert why is not None
    assert "guardrail ctr: warmer loses" in why
    assert "as-is is better than every other arm in ctr" in trial_finding(watched.setting, watched.last).sentence
    ended = stop(watched.setting, why, 9)
    assert trial_finding(ended, watched.last).sentence == f"stopped: {why}"
    told = report(ended, watched.last, 9)
    assert decode_report(encode_report(told)) == told
    assert told.arms[1].against_first["ctr"].high < 0


def bandit_played(users: int = 1_600) -> Referee:
    """A first cohort of a quarter of the users, of whom the second arm's click half as often again."""
    referee, draw = Referee(), np.random.default_rng(7)
    referee.follow(start(draft(bandit=BANDIT, width=1.0), 0.25, 1_000))
    names = [f"u{user}" for user in range(users)]
    arms = referee.watched[1].experiment.assign(id64s(names))
    taking_part = np.flatnonzero(arms != OUTSIDE)
    keys = [names[user].encode() for user in taking_part]
    referee.take_rows(keys, np.concatenate([row(1, 1, 0)] * len(keys)))
    assert referee.look()[0].next_cohort(None, 61_000).cohorts[0].shares == (0.5, 0.5)  # nothing is known yet
    see(referee, [shown(user, int(arms[user]), 10) for user in taking_part])
    for at in (1, 2):
        rows = np.concatenate([row(10 * at, 1 + 20 * (at - 1), 0)] * len(keys))
        rows["answered_clicks"] = draw.binomial(20 * (at - 1), np.array([0.2, 0.3])[arms[taking_part]])
        referee.take_rows(keys, rows)
    return referee


def test_a_bandits_next_cohort_goes_to_the_arm_that_did_better_and_outlasts_a_restart(tmp_path):
    referee = bandit_played()
    (watched,) = referee.look()
    assert watched.next_cohort(None, 60_000) is None
    cohorts = watched.next_cohort(None, 61_000)
    assert cohorts.cohorts[0].shares[1] == pytest.approx(0.9, abs=1e-3)
    referee.allocate(cohorts)
    (watched,) = referee.look()
    told = report(watched.setting, watched.last, 9, watched.allocation)
    assert (told.cohorts, told.arms[1].share) == (2, cohorts.cohorts[0].shares[1])
    save(tmp_path / "x.npz", referee, {}, {})
    again = Referee()
    load(tmp_path / "x.npz", again)
    again.allocate(cohorts)  # the control topic is read whole, every time
    assert again.look()[0].last.values == watched.last.values
    assert again.watched[1].next_cohort(cohorts, 10**6).cohorts[0] == cohorts.cohorts[0]


def test_arms_that_are_alike_break_nothing():
    (watched,) = played(2, rates=(0.3, 0.3)).look()
    assert breached(watched.setting, watched.last) is None
    assert trial_finding(watched.setting, watched.last).sentence.startswith(
        "no difference is certain yet (ctr less as-is's: warmer -0."
    )


def test_a_loss_beyond_a_guardrail_that_is_not_sure_ends_nothing():
    (watched,) = played(5, users=210, rates=(0.35, 0.30)).look()
    found = watched.last.differences["ctr"][1]
    assert found.value < -RAIL.most_loss * watched.last.values["ctr"][0] < found.high
    assert breached(watched.setting, watched.last) is None


def test_an_arm_in_which_nobody_does_anything_breaks_a_guardrail_all_the_same():
    (watched,) = played(6, rates=(0.3, 0.0)).look()
    assert breached(watched.setting, watched.last) == "guardrail ctr: warmer loses 100.0%, surely more than 10.0%"
    watched.last.values["ctr"][0] = 0.0  # as a covariate may make it, and then no share of it can be lost
    assert breached(watched.setting, watched.last) is None


def test_an_arm_that_loses_its_users_is_not_believed():
    referee = Referee()
    referee.follow(running())
    names = [f"u{user}".encode() for user in range(600)]
    see(referee, [shown(user, int(user > 500), 10) for user in range(600)])
    referee.take_rows(names, np.concatenate([row(10, 1, 0)] * 600))
    (watched,) = referee.look()
    assert "do not have their shares" in trial_finding(watched.setting, watched.last).sentence


def test_a_referee_that_starts_again_goes_on_with_the_same_evidence(tmp_path):
    file, referee = tmp_path / "referee" / "x.npz", played(3)
    see(referee, [shown(399, 0, 99)])
    before = referee.look()[0].last
    save(file, referee, {("impressions", 0): 7, ("changelog", 3): 9}, {"impressions": "an-id"})
    again = Referee()
    assert load(file, again) == ({("impressions", 0): 7, ("changelog", 3): 9}, {"impressions": "an-id"})
    assert again.look()[0].last.values == before.values
    assert again.watched[1].trial.evidence == referee.watched[1].trial.evidence
    for one in (referee, again):
        one.take_rows([b"u399", b"new"], np.concatenate([row(100, 50, 25), row(100, 1, 0)]))
    np.testing.assert_array_equal(*(one.people.totals[: one.people.number] for one in (again, referee)))
    assert again.look()[0].last.values == referee.look()[0].last.values


def test_a_file_that_is_not_the_referees_says_what_to_do(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"not a file of arrays")
    with pytest.raises(StoreError, match="delete it to start anew"):
        load(tmp_path / "x.npz", Referee())
    assert load(tmp_path / "none.npz", Referee()) == ({}, {})


def test_a_running_message_is_the_experiment_that_the_core_runs():
    experiment = definition(running())
    assert experiment.shares.tolist() == [[0.5, 0.5]]
    assert experiment.arms[1].changes == {"temperature": 0.3}
