"""Choices read from decisions and clicks, and the trial logs that come as files."""

import asyncio
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from scoring.offpolicy import Logged, evaluate
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.ranking import rank
from streams import choices
from streams.choices import Choices, temperature_of
from streams.cli import app
from streams.cli.ope import told_of
from streams.logs import LogError
from streams.logs.hillstrom import ARMS, values
from streams.wire import Click, Decision, Placement, Slot, encode_json

PCTR = np.array([0.30, 0.10, 0.20, 0.05], dtype=np.float32)
BIDS = np.full(4, 1_000_000)
ADS = np.arange(1, 5, dtype=np.uint64)


def _decision(seed: int, temperature: float, arm: str = ENGINE_ARM, user: str = "u") -> tuple[Decision, list[str]]:
    ranked = rank((PCTR * BIDS)[None], ADS[None], np.array([seed], dtype=np.uint64), np.array([temperature]), 2)
    chosen, chances = ranked.chosen[0].tolist(), ranked.propensity[0].tolist()
    ads = [f"ad-{place}" for place in chosen]
    slots = tuple(
        Slot(slot=at, ad_id=ad, campaign_id="c", pctr=0.1, ecpm_micros=1, price_micros=1, propensity=chance)
        for at, (ad, chance) in enumerate(zip(ads, chances, strict=True))
    )
    name = f"p-{seed}"
    placement = Placement(placement_id=name, user_id=user, time_ms=1, valid_until_ms=2, arm=arm, model="m", slots=slots)
    return Decision(
        placement_id=name, user_id=user, time_ms=1, lane=0, offsets=(0, 0), versions={}, arm=arm, seed=seed,
        policy={}, row=b"", candidates=ADS.tobytes(), revisions=b"", weights=b"", lifts=b"",
            pctr=PCTR.tobytes(), bids_micros=BIDS.tobytes(),
        chosen=tuple(chosen), propensities=tuple(chances), placement=encode_json(placement),
    ), ads  # fmt: skip


def _click(placement_id: str, ad_id: str) -> bytes:
    click = Click(event_id="e", user_id="u", ad_id=ad_id, time_ms=2, impression_time_ms=1, placement_id=placement_id)
    return encode_json(click)


def test_the_clicks_of_a_uniform_policy_are_estimated_slot_by_slot_from_the_topics_records():
    choices, draw = Choices(temperature_of("uniform"), slots=2), np.random.default_rng(3)
    for seed in range(1, 4_001):
        decision, ads = _decision(seed, temperature=1.0)
        choices.decided([encode_json(decision), None])
        for ad in ads:
            if draw.random() < PCTR[int(ad.removeprefix("ad-"))]:
                choices.clicked([_click(decision.placement_id, ad)])
    for logged in choices.logged():
        terms = logged.weight * logged.reward
        error = terms.std() / np.sqrt(len(terms))
        assert abs(terms.mean() - PCTR.mean()) < 3 * error
        assert logged.weight.mean() == pytest.approx(1, abs=0.1)
    first = choices.logged()[0]
    assert isinstance(first, Logged)
    assert first.model_policy == pytest.approx(np.full(4_000, PCTR.mean()))


def test_placements_of_one_person_are_told_to_be_alike():
    choices = Choices(1.0, slots=2)
    choices.decided([encode_json(_decision(seed, 1.0, user=f"u{seed % 3}")[0]) for seed in range(1, 41)])
    for logged in choices.logged():
        assert logged.person is not None
        assert np.unique(logged.person, return_counts=True)[1].tolist() == [14, 13, 13]
    told = told_of(choices, "temperature=1.0")["temperature=1.0: clicks in slot 1"]
    assert told["people"] == 3
    assert any("choices of 3 people" in doubt for doubt in told["doubts"])


def test_the_control_group_whose_candidates_no_policy_chose_is_left_out_and_told():
    choices = Choices(1.0)
    arms = [CONTROL_ARM if seed % 4 == 0 else ENGINE_ARM for seed in range(1, 41)]
    choices.decided([encode_json(_decision(seed, 1.0, arm)[0]) for seed, arm in enumerate(arms, 1)])
    assert len(choices.logged()[0].reward) == 30
    assert told_of(choices, "temperature=1.0")["temperature=1.0: clicks in slot 1"]["control_left_out"] == 10


def test_a_log_of_the_control_group_alone_says_so():
    choices = Choices(1.0)
    choices.decided([encode_json(_decision(1, 1.0, CONTROL_ARM)[0])])
    with pytest.raises(ValueError, match="no placements with this slot beside 1 of the control group"):
        choices.logged()


def test_slots_of_which_no_model_tells_have_no_estimates_by_one():
    choices = Choices(temperature_of("uniform"), slots=2)
    choices.decided([encode_json(_decision(seed, 1.0)[0]) for seed in range(1, 201)])
    first, second = (set(evaluate(logged)) for logged in choices.logged())
    assert first == {"ips", "snips", "dm", "dr", "switch_dr", "sndr"}
    assert second == {"ips", "snips"}


def test_malformed_clicks_and_other_outcomes_say_nothing():
    choices = Choices(1.0)
    view = b'{"kind": "view", "placement_id": "p", "ad_id": "a", "impression_time_ms": 1}'
    choices.clicked([b"{", None, view, b'{"ad_id": "a", "impression_time_ms": 1}'])
    assert not choices.clicks


def test_a_click_that_answers_no_impression_is_no_outcome_of_what_was_shown():
    choices = Choices(1.0)
    own_idea = Click(event_id="e", user_id="u", ad_id="a", time_ms=2, placement_id="p")
    choices.clicked([encode_json(own_idea), _click("p", "b")])
    assert choices.clicks == {("p", "b")}


@pytest.mark.parametrize("bad", [b"{bad", b"{}", b"[" * 3_000, b"\xff"])
def test_a_malformed_decision_says_nothing_and_the_others_are_taken(bad):
    choices = Choices(1.0)
    good = encode_json(_decision(1, 1.0)[0])
    choices.decided([bad, encode_json(replace(_decision(2, 1.0)[0], placement=bad)), good])
    assert list(choices.placed) == ["p-1"]


@pytest.mark.parametrize("policy", ["best", "temperature=", "temperature=-1", "temperature=x"])
def test_a_policy_without_a_meaning_is_refused(policy):
    with pytest.raises(ValueError, match="expected uniform, greedy, or temperature=NUMBER"):
        temperature_of(policy)


def _hillstrom(directory: Path, customers: int) -> None:
    draw = np.random.default_rng(5)
    lines = ["row,newbie,treatment,visit,conversion,spend"]
    for row in range(customers):
        arm = int(draw.integers(3))
        visit = int(draw.random() < (0.1, 0.3, 0.2)[arm])
        lines.append(f"{row},{draw.integers(2)},{ARMS[arm]},{visit},{visit},{visit * 10.0}")
    with gzip.open(directory / "half_a.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")


def test_every_arm_of_a_trial_is_recovered_from_a_log_that_favoured_some(tmp_path):
    _hillstrom(tmp_path, 6_000)
    found = list(values(tmp_path))
    assert len(found) == 9
    assert sum(value.covered("dr") for value in found) >= 8
    by_arm = {value.arm: value.estimates["snips"].value for value in found if value.outcome == "visit"}
    assert by_arm["Mens E-Mail"] > by_arm["Womens E-Mail"] > by_arm["No E-Mail"]


def test_a_trial_with_an_unknown_arm_names_the_line(tmp_path):
    with gzip.open(tmp_path / "half_a.csv.gz", "wt") as file:
        file.write("row,newbie,treatment,visit,conversion,spend\n1,0,Post,0,0,0\n")
    with pytest.raises(LogError, match=r"line 2: treatment is 'Post'; expected one of No E-Mail"):
        list(values(tmp_path))


def test_the_command_prints_one_object_and_refuses_a_log_it_does_not_know(tmp_path):
    _hillstrom(tmp_path, 2_000)
    told = CliRunner().invoke(app, ["ope", "--log", f"hillstrom:{tmp_path}", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["Mens E-Mail: visit"]["estimates"]["dr"]["value"] > 0.2
    assert CliRunner().invoke(app, ["ope", "--log", f"hillstrom:{tmp_path}"]).exit_code == 0
    assert CliRunner().invoke(app, ["ope", "--log", "nothing"]).exit_code == 2
    missing = CliRunner().invoke(app, ["ope", "--log", f"obd:{tmp_path}"])
    assert missing.exit_code == 1
    assert "random_all.csv.gz does not exist" in missing.output


def test_what_takes_minutes_is_told_while_it_is_read(monkeypatch):
    async def read(_bootstrap, topic, *, progress):
        progress(1, 2)
        progress(2, 2)
        yield []
        assert topic in ("shop-decisions", "shop-clicks")

    seen = []
    monkeypatch.setattr(choices, "read_topic", read)
    asyncio.run(choices.read_choices("b:1", "shop-", 0.0, 1, lambda *told: seen.append(told)))
    assert seen == [("decisions", 1, 2), ("decisions", 2, 2), ("clicks", 1, 2), ("clicks", 2, 2)]


def test_a_small_simulation_of_experiments_keeps_what_is_promised():
    told = CliRunner().invoke(app, ["simulate", "aa", "--experiments", "10", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["false_positive_rate"] == 0
    assert found["srm_detected"] is True
