"""Choices read from decisions and clicks, and the trial logs that come as files."""

import asyncio
import dataclasses
import gzip
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from scoring.offpolicy import Logged, evaluate
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.ranking import rank
from scoring.units import DAY_MS, MINUTE_MS
from streams import choices
from streams.choices import Choices, temperature_of
from streams.cli import app
from streams.cli.ope import UNTOLD, told_of
from streams.logs import LogError
from streams.logs.hillstrom import ARMS, values
from streams.wire import Click, Decision, Placement, Slot, encode_json
from tests.builders import Record

PCTR = np.array([0.30, 0.10, 0.20, 0.05], dtype=np.float32)
BIDS = np.full(4, 1_000_000)
ADS = np.arange(1, 5, dtype=np.uint64)
POLICY = {
    "slots": 2.0, "candidates": 4.0, "fresh_share": 0.0, "random_share": 0.0, "temperature": 1.0, "control_share": 0.05,
    "placement_ttl_ms": 9.0,
}  # fmt: skip


_OFFSETS = itertools.count()


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
        placement_id=name, user_id=user, time_ms=1, lane=0, offsets=(0, 0), versions={"model": "m"}, arm=arm, seed=seed,
        policy=POLICY, row=b"one", candidates=ADS.tobytes(), revisions=bytes(32), weights=b"", lifts=bytes(16),
            pctr=PCTR.tobytes(), bids_micros=BIDS.tobytes(),
        chosen=tuple(chosen), propensities=tuple(chances), placement=encode_json(placement),
    ), ads  # fmt: skip


def _click(placement_id: str, ad_id: str, user: str = "u", **fields: Any) -> Record:
    """The click of a placement's user on one of its ads, a second after it was shown."""
    told = {"time_ms": 1_001, "impression_time_ms": 1, "placement_id": placement_id} | fields
    click = Click(event_id=f"{placement_id}/{ad_id}", user_id=user, ad_id=ad_id, **told)
    return Record("clicks", 0, next(_OFFSETS), click.time_ms, user.encode(), encode_json(click))


def test_the_clicks_of_a_uniform_policy_are_estimated_slot_by_slot_from_the_topics_records():
    choices, draw = Choices(temperature_of("uniform"), slots=2), np.random.default_rng(3)
    for seed in range(1, 4_001):
        decision, ads = _decision(seed, temperature=1.0, user=f"u{seed}")
        choices.decided([encode_json(decision), None])
        for ad in ads:
            if draw.random() < PCTR[int(ad.removeprefix("ad-"))]:
                choices.clicked([_click(decision.placement_id, ad, decision.user_id)])
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
        assert sorted(np.unique(logged.person, return_counts=True)[1].tolist()) == [13, 13, 14]
    told = told_of(choices, "temperature=1.0")["temperature=1.0: clicks in slot 0"]
    assert told["people"] == 3
    assert any("choices of 3 people" in doubt for doubt in told["doubts"])


def test_the_control_group_whose_candidates_no_policy_chose_is_left_out_and_told():
    choices = Choices(1.0)
    arms = [CONTROL_ARM if seed % 4 == 0 else ENGINE_ARM for seed in range(1, 41)]
    choices.decided([encode_json(_decision(seed, 1.0, arm)[0]) for seed, arm in enumerate(arms, 1)])
    assert len(choices.logged()[0].reward) == 30
    assert told_of(choices, "temperature=1.0")["temperature=1.0: clicks in slot 0"]["control_left_out"] == 10


def test_a_receipt_that_is_there_twice_counts_once_for_whichever_group(monkeypatch):
    monkeypatch.setattr(choices, "DECISIONS_MAX", 3)
    found = Choices(1.0)
    for seed in range(1, 9):
        value = encode_json(_decision(seed, 1.0, CONTROL_ARM if seed > 2 else ENGINE_ARM)[0])
        found.decided([value, value])
    assert (len(found.placed), found.control) == (2, 6)
    assert len(found._controls) <= 3


def test_a_log_of_the_control_group_alone_says_so():
    choices = Choices(1.0)
    choices.decided([encode_json(_decision(1, 1.0, CONTROL_ARM)[0])])
    with pytest.raises(ValueError, match="no placement with slot 0 can be judged: 1 of the control group"):
        choices.logged()


def test_slots_of_which_no_model_tells_have_no_estimates_by_one():
    choices = Choices(temperature_of("uniform"), slots=2)
    choices.decided([encode_json(_decision(seed, 1.0)[0]) for seed in range(1, 201)])
    first, second = (set(evaluate(logged)) for logged in choices.logged())
    assert first == {"ips", "snips", "dm", "dr", "switch_dr", "sndr"}
    assert second == {"ips", "snips"}


@pytest.mark.parametrize("bad", [b"{bad", b"{}", b"[" * 3_000, b"\xff"])
def test_a_malformed_decision_says_nothing_and_the_others_are_taken(bad):
    choices = Choices(1.0)
    good = encode_json(_decision(1, 1.0)[0])
    choices.decided([bad, encode_json(replace(_decision(2, 1.0)[0], placement=bad)), good])
    assert list(choices.placed) == ["p-1"]


@pytest.mark.parametrize(
    "bad",
    [
        {"chosen": (7, 1)},
        {"chosen": (-1, 1)},
        {"chosen": (10**30, 1)},
        {"pctr": np.array([np.nan, 0.1, 0.1, 0.1], dtype="<f4").tobytes()},
        {"fates": bytes([0, 0])},
        {"fates": bytes([4, 4, 100, 101]), "chosen": (0, 2)},
        {"worth": b"1234"},
        {"propensities": (0.0, 0.5)},
        {"propensities": ()},
        {"propensities": (1e-320, 0.5)},
        {"propensities": (1e-200, 1e-200)},
        {"propensities": (1e-160, 0.5)},
    ],
)
def test_a_receipt_whose_places_or_chances_do_not_fit_its_candidates_says_nothing(bad):
    choices = Choices(1.0, slots=2)
    choices.decided([encode_json(replace(_decision(seed, 1.0)[0], **(bad if seed == 1 else {}))) for seed in (1, 2)])
    assert list(choices.placed) == ["p-2"]
    assert np.isfinite(choices.logged()[1].weight).all()
    assert told_of(choices, "temperature=1.0")


def _all_begin_at(offset: int) -> Callable[[str, str], Awaitable[dict[int, int]]]:
    """What tells where the two partitions of a topic begin."""

    async def begins(_bootstrap: str, topic: str) -> dict[int, int]:
        assert topic.endswith("clicks")
        return {0: offset, 1: offset}

    return begins


def _topics_of(days: int, clicks: dict[int, list[int]], first_offset: int) -> Choices:
    """The topics read: a placement a day in each of two lanes, and the days of ``clicks`` by their partition."""

    def value_of(day: int, lane: int) -> bytes:
        made = {"placement_id": f"p-{day}-{lane}", "time_ms": day * DAY_MS, "lane": lane}
        return encode_json(replace(_decision(day + 1, 1.0)[0], **made))

    def click_of(day: int, lane: int, offset: int) -> Record:
        click = _click(f"p-{day}-{lane}", _decision(day + 1, 1.0)[1][0], time_ms=day * DAY_MS)
        return dataclasses.replace(click, partition=lane, offset=offset, timestamp=day * DAY_MS)

    async def read(_bootstrap, topic, *, progress):
        if topic == "decisions":
            yield [Record(topic, lane, day, 0, b"u", value_of(day, lane)) for day in range(days) for lane in range(2)]
            return
        for lane, clicked in clicks.items():
            for at, day in enumerate(clicked):
                yield [click_of(day, lane, first_offset + at)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "read_topic", read)
        patch.setattr(choices, "log_begins", _all_begin_at(first_offset))
        return asyncio.run(choices.read_choices("b:1", "", Choices(1.0)))


def test_placements_whose_clicks_are_deleted_by_age_are_left_out_and_told():
    found = _topics_of(30, {0: [*range(23, 30)], 1: [*range(25, 30)]}, first_offset=9)
    (logged,) = found.logged()
    assert (len(logged.reward), logged.reward.mean()) == (7 + 5, 1.0)
    (told,) = told_of(found, "temperature=1.0").values()
    assert (told["before_clicks_left_out"], told["beyond_most_left_out"]) == (23 + 25, 0)


def test_a_partition_without_a_click_is_held_to_what_the_others_still_have():
    assert sorted(_topics_of(30, {0: [28]}, first_offset=9).known) == ["p-28-0", "p-28-1", "p-29-0", "p-29-1"]


@pytest.mark.parametrize("clicks", [{}, {0: [20], 1: [25]}])
def test_a_clicks_topic_that_has_lost_nothing_tells_of_all_placements(clicks):
    found = _topics_of(30, clicks, first_offset=0)
    assert len(found.logged()[0].reward) == 60
    assert told_of(found, "temperature=1.0")["temperature=1.0: clicks in slot 0"]["before_clicks_left_out"] == 0


def test_a_log_of_placements_older_than_all_clicks_says_so():
    found = _topics_of(3, {0: [9]}, first_offset=9)
    with pytest.raises(ValueError, match="judged: 6 older than the clicks that are still there"):
        found.logged()


def test_of_a_clicks_topic_whose_records_are_all_deleted_by_age_no_placement_counts_as_unclicked():
    found = _topics_of(30, {}, first_offset=9)
    assert (found.too_old, found.too_new) == (60, 0)
    with pytest.raises(ValueError, match="judged: 60 older than the clicks that are still there"):
        found.logged()


def test_a_partition_that_never_had_a_click_tells_of_all_its_placements_beside_one_whose_clicks_are_deleted():
    found = Choices(1.0)
    for lane in (0, 1):
        found.decided([encode_json(replace(_decision(1, 1.0)[0], placement_id=f"p-{lane}", lane=lane))])
    found.begun({0: 9, 1: 0})
    assert [*found.known] == ["p-1"]


def test_placements_that_may_still_be_clicked_are_left_out_and_told():
    found, end_ms, draw = Choices(1.0, window_ms=10 * MINUTE_MS), 30 * MINUTE_MS, np.random.default_rng(7)
    policy = POLICY | {"placement_ttl_ms": 10.0 * MINUTE_MS}
    for at in range(600):  # of every five one is shown and clicked, up to twenty minutes later, as far as time goes
        told, ads = _decision(at + 1, 1.0, user=f"u{at}")
        told = replace(told, time_ms=at * 3_000, policy=policy)
        found.decided([encode_json(told)])
        shown_ms = told.time_ms + draw.integers(10 * MINUTE_MS)
        if at % 5 == 0 and shown_ms + draw.integers(10 * MINUTE_MS) < end_ms:
            found.clicked([_click(told.placement_id, ads[0], told.user_id)])
    (told,) = told_of(found, "temperature=1.0").values()
    assert (told["choices"], told["too_new_left_out"], told["before_clicks_left_out"]) == (200, 400, 0)
    assert told["observed"] == 0.2
    found.window_ms = 0
    (early,) = told_of(found, "temperature=1.0").values()
    assert (early["choices"], early["too_new_left_out"]) == (600, 0)
    assert early["observed"] < 0.16


@pytest.mark.parametrize(
    "newest",
    [{}, {"arm": CONTROL_ARM}, {"chosen": (), "propensities": ()}],
    ids=["engine", "control group", "nobody chosen"],
)
def test_a_lanes_own_decisions_tell_when_the_windows_of_its_placements_have_ended(newest):
    found = Choices(1.0, window_ms=10)
    for lane, time_ms, made in ((0, 5, {}), (0, 23, newest), (1, 100, {}), (1, 119, newest)):
        told = {"placement_id": f"p-{lane}-{time_ms}", "time_ms": time_ms, "lane": lane} | made
        found.decided([encode_json(replace(_decision(1, 1.0)[0], **told))])
    assert [*found.known] == ["p-1-100"]


def test_an_empty_log_and_one_whose_placements_have_no_such_slot_ask_for_the_topic():
    found, (made, _) = Choices(1.0, slots=2, window_ms=10), _decision(1, 1.0)
    with pytest.raises(ValueError, match=r"no placement with slot 0 can be judged; is the decisions topic filled\?"):
        found.logged()
    for time_ms in (1, 1_000):
        told = {"chosen": made.chosen[:1], "propensities": made.propensities[:1], "placement_id": f"p-{time_ms}"}
        found.decided([encode_json(replace(made, time_ms=time_ms, **told))])
    with pytest.raises(ValueError, match=r"judged: 1 may still be clicked; is the decisions topic filled\?"):
        found.logged()


def test_a_log_of_placements_that_may_all_still_be_clicked_says_so_as_the_command_asks_for_it(monkeypatch):
    async def read(_bootstrap, topic, *, progress):
        made = [replace(_decision(seed, 1.0)[0], time_ms=seed * 1_000) for seed in range(1, 41)]
        yield [Record(topic, 0, 0, 0, b"u", encode_json(one)) for one in made if topic == "decisions"]

    monkeypatch.setattr(choices, "read_topic", read)
    monkeypatch.setattr(choices, "log_begins", _all_begin_at(0))
    answer = CliRunner().invoke(app, ["ope", "--log", "topics"])
    assert answer.exit_code == 1
    assert (
        "no placement with slot 0 can be judged: 40 may still be clicked; "
        "ask again after 10 min more of traffic, or set SALIENCE_CLICK_WINDOW_MS to what workers have"
    ) in " ".join(answer.output.split())
    monkeypatch.setenv("SALIENCE_CLICK_WINDOW_MS", "1000")
    shown = CliRunner().invoke(app, ["ope", "--log", "topics"])
    assert "Left out: 2 placements too new: whether they are clicked is not known yet" in " ".join(shown.output.split())


def test_of_more_placements_than_are_kept_the_newest_stay_and_the_others_are_told(monkeypatch):
    monkeypatch.setattr(choices, "DECISIONS_MAX", 3)
    found = Choices(1.0)
    found.decided([encode_json(_decision(seed, 1.0)[0]) for seed in range(1, 11)])
    assert list(found.placed) == ["p-8", "p-9", "p-10"]
    (told,) = told_of(found, "temperature=1.0").values()
    assert (told["choices"], told["beyond_most_left_out"]) == (3, 7)


def test_a_second_slot_of_which_the_log_tells_nothing_leaves_the_first_ones_estimates(monkeypatch):
    found = Choices(temperature_of("greedy"), slots=2)
    made = [_decision(seed, 1.0)[0] for seed in range(1, 41)]
    found.decided([encode_json(one) for one in made if one.chosen[1] != 2])  # the second best never follows the best
    first, second = told_of(found, "greedy").values()
    assert first["estimates"]["snips"]["value"] == 0
    assert (second["estimates"], second["doubts"]) == ({}, [UNTOLD])
    monkeypatch.setattr(choices, "read_choices", AsyncMock())
    monkeypatch.setattr(choices, "Choices", lambda *_, **__: found)
    shown = CliRunner().invoke(app, ["ope", "--log", "topics", "--slots", "2", "--policy", "greedy"])
    assert shown.exit_code == 0, shown.output
    assert UNTOLD in " ".join(shown.output.split())


@pytest.mark.parametrize("policy", ["best", "temperature=", "temperature=-1", "temperature=x"])
def test_a_policy_without_a_meaning_is_refused(policy):
    with pytest.raises(ValueError, match="expected uniform, greedy, or temperature=NUMBER"):
        temperature_of(policy)
    assert CliRunner().invoke(app, ["ope", "--log", "topics", "--policy", policy]).exit_code == 2


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
    monkeypatch.setattr(choices, "log_begins", _all_begin_at(0))
    monkeypatch.setattr(choices, "read_topic", read)
    monkeypatch.setattr(choices, "log_begins", _all_begin_at(0))
    asyncio.run(choices.read_choices("b:1", "shop-", Choices(0.0), lambda *told: seen.append(told)))
    assert seen == [("decisions", 1, 2), ("decisions", 2, 2), ("clicks", 1, 2), ("clicks", 2, 2)]


def test_a_small_simulation_of_experiments_keeps_what_is_promised():
    told = CliRunner().invoke(app, ["simulate", "aa", "--experiments", "10", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["false_positive_rate"] == 0
    assert found["srm_detected"] is True
