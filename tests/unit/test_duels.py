"""An interleaved experiment from draft to report: placements, receipts, what is learnt, and the referee."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.assignment import Arm, Experiment
from scoring.attention import load as load_model
from scoring.ids import id64
from scoring.interleaving import picks
from scoring.models import Roles
from streams.control_wire import ArmSetting, ExperimentSetting, Guardrail
from streams.experiments.duels import side_of
from streams.experiments.referee import Referee
from streams.experiments.registry import Bandit, ExperimentError, create, definition, start, stop
from streams.experiments.report import decode_report, duel_report, encode_report
from streams.experiments.store import load, save
from streams.explain import recompute
from streams.wire import Placement, encode_json
from tests.models import fails_on_what_is_new, toy_model
from tests.unit.showing import placed, see
from tests.unit.test_models import engine_of, lane, run, toy, users_of

ARMS = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="warmer", share=0.5, changes={"temperature": 0.3}))


def draft(**fields) -> ExperimentSetting:
    given = {"arms": ARMS, "layer": "ranking", "width": 1.0, "primary": "ctr", "guardrails": (), "time_ms": 1} | fields
    return create({}, "warmth", interleaved=True, **given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": (ARMS[0], ArmSetting(arm="b", share=0.5, changes={"slots": 3.0}))}, "change slots; only rankings"),
        ({"arms": tuple(ArmSetting(arm=f"a{at}", share=0.25) for at in range(4))}, "4 arms to interleave"),
        ({"arms": (ArmSetting(arm="a", share=0.3), ArmSetting(arm="b", share=0.7))}, "two arms of 0.5 each"),
        ({"guardrails": (Guardrail(metric="ctr", most_loss=0.1),)}, "without bandit and guardrails"),
        ({"bandit": Bandit(0.1, 60)}, "without bandit and guardrails"),
    ],
)
def test_what_cannot_be_interleaved_is_refused_with_the_reason(fields, message):
    with pytest.raises(ExperimentError, match=message):
        draft(**fields)
    assert definition(draft()).interleaved


def test_every_slot_is_the_pick_of_whose_turn_it_was_and_is_computed_again(tmp_path: Path) -> None:
    old, new = toy(tmp_path, 0), toy(tmp_path, 1)
    engine, state = engine_of(old, new), lane()
    arms = (Arm("as-is", 0.5), Arm("newer", 0.5, model=new.version))
    engine.experiments.set(7, Experiment("duel", "ranking", 0, 1, 1, arms, interleaved=True))
    decisions, outcomes, _ = run(engine, state, roles=[Roles(arms=(new.version,))])
    both = [one for one in decisions if one.arm == "duel/interleaved"]
    assert len(both) > 50
    assert all(one.other is None for one in decisions if one not in both)
    turned = 0
    for decision in both:
        assert decision.other is not None
        assert (decision.other.model, decision.versions["model"]) == (new.version, old.version)
        placement = msgspec.json.decode(decision.placement, type=Placement)
        assert placement.placement_id.endswith(".7-2")
        turns = picks(np.array([decision.seed], dtype=np.uint64), len(placement.slots))[0].astype(int).tolist()
        pctr = [np.frombuffer(told, dtype=np.float32) for told in (decision.pctr, decision.other.pctr)]
        worth = [rates * np.frombuffer(decision.bids_micros, dtype=np.int64) for rates in pctr]
        left = set(range(len(worth[0])))
        for slot, place, turn in zip(placement.slots, decision.chosen, turns, strict=True):
            assert side_of(placement.placement_id, slot.slot) == turn
            assert worth[turn][place] == pytest.approx(max(worth[turn][at] for at in left))
            turned += worth[1 - turn][place] < max(worth[1 - turn][at] for at in left)
            left.discard(place)
        held = engine_of(old, new)
        assert recompute(decision, held).differences == []
        assert "second ranking is by" in recompute(decision, engine_of(old)).differences[0]
    assert turned > 20  # the rankings differ
    assert {one.model for one in outcomes} == {old.version, new.version}
    users = users_of(2_000)
    half = {served.version: len(places) for served, places in engine.scorers(users)}
    assert half[new.version] == pytest.approx(0.8 * 2_000 / 2, rel=0.1)  # all but the control arm


def test_where_the_second_model_fails_the_placement_is_the_shops_own(tmp_path: Path) -> None:
    old = toy(tmp_path, 0)
    bad = load_model(toy_model(tmp_path / "bad", graphs=fails_on_what_is_new))
    engine = engine_of(old, bad)
    arms = (Arm("as-is", 0.5), Arm("bad", 0.5, model=bad.version))
    engine.experiments.set(7, Experiment("duel", "ranking", 0, 1, 1, arms, interleaved=True))
    decisions, _, _ = run(engine, lane(), roles=[Roles(arms=(bad.version,))])
    assert "no finite numbers" in engine.models.refused[bad.version]
    assert {one.arm for one in decisions} == {"engine", "control"}
    assert all(one.other is None for one in decisions)


def shown(user: int, slot: int, event: str) -> bytes:
    told = {"user_id": f"u{user}", "ad_id": "ad", "time_ms": 10, "event_id": event, "slot": slot}
    return encode_json(told | {"placement_id": placed(f"u{user}", (1, 2))})


def outcome(event: str, clicked: bool, shown_ms: int = 10) -> bytes:
    return encode_json({"event": f"{id64(event):016x}", "ad_id": "ad", "shown_ms": shown_ms, "clicked": clicked})


def played(referee: Referee, users: range, share: float) -> None:
    """Everyone sees two slots, and clicks the second arm's with a chance of ``share``, else the first's."""
    draw = np.random.default_rng(users.start)
    shows, told = [], []
    for user in users:
        wanted = int(draw.random() < share)
        for slot in range(2):
            shows.append(shown(user, slot, f"{user}/{slot}"))
            told.append(outcome(f"{user}/{slot}", side_of(placed(f"u{user}", (1, 2)), slot) == wanted))
    see(referee, shows)
    referee.take_outcomes([*told, *told, b"{"])  # one that is told twice counts once


def test_the_referee_credits_clicks_tells_who_is_preferred_and_goes_on_after_a_restart(tmp_path):
    referee, setting = Referee(), start(draft(), 1.0, 2)
    referee.take_outcomes([b"not looked at while nobody asks"])
    referee.follow(setting)
    see(referee, [shown(1, 0, "waits")])
    played(referee, range(10, 310), 0.7)
    assert referee.malformed == 1
    (watched,) = referee.look()
    told = duel_report(setting, watched.score, 9)
    assert decode_report(encode_report(told)) == told
    assert "warmer is preferred: its picks win 7" in told.verdict
    assert told.arms[1].against_first["preference"].low > 0
    assert told.arms[0].against_first == {}
    assert [arm.metrics["clicks"] for arm in told.arms] == watched.duel.credit.sum(axis=0).tolist()
    assert sum(arm.metrics["clicks"] or 0 for arm in told.arms) == 300
    assert told.arms[0].users == 301
    save(tmp_path / "x.npz", referee, {}, {})
    again = Referee()
    load(tmp_path / "x.npz", again)
    for one in (referee, again):
        one.take_outcomes([outcome("waits", True)])
        played(one, range(400, 450), 0.7)
    assert again.look()[0].score == referee.look()[0].score
    assert again.watched[1].duel.credit.sum() == 351
    ended = stop(setting, "warmer won", 9)
    assert duel_report(ended, watched.score, 9).verdict == "stopped: warmer won"


def test_rankings_that_are_alike_are_not_told_apart():
    referee = Referee()
    referee.follow(start(draft(), 1.0, 2))
    (watched,) = referee.look()
    assert duel_report(watched.setting, watched.score, 9).verdict == "too few people have clicked yet"
    played(referee, range(200), 0.5)
    (watched,) = referee.look()
    told = duel_report(watched.setting, watched.score, 9)
    assert told.verdict == "neither ranking is surely preferred yet"


def looked_at() -> tuple[Referee, ExperimentSetting]:
    """A referee that looked at a duel with a winner, one impression of which has no outcome yet."""
    referee, setting = Referee(), start(draft(), 1.0, 2)
    referee.follow(setting)
    see(referee, [shown(1, 0, "waits")])
    played(referee, range(10, 310), 0.7)
    referee.look()
    return referee, setting


def restarted(referee: Referee, file: Path) -> Referee:
    save(file, referee, {}, {})
    again = Referee()
    load(file, again)
    return again


@pytest.mark.parametrize("why", ["warmer won", "taken back"])
def test_a_duel_that_is_over_keeps_its_score_and_none_of_its_people(why: str, tmp_path: Path) -> None:
    referee, setting = looked_at()
    told = referee.watched[1].score
    assert told is not None
    assert told.preference is not None
    if why == "taken back":
        referee.keep({})
    else:
        referee.follow(stop(setting, why, 9))
    for again in (referee, restarted(referee, tmp_path / "x.npz")):
        again.follow(setting)  # the topic is read whole, every time
        assert again.credits.pending == {}
        played(again, range(310, 320), 0.0)
        again.take_outcomes([outcome("waits", True)])
        (watched,) = again.look()
        assert (watched.duel, watched.score) == (None, told)
        assert again.credits.pending == {}
        assert duel_report(watched.setting, told, 9).verdict == f"stopped: {why}"


def test_the_end_of_a_duel_takes_nothing_from_another(tmp_path: Path) -> None:
    referee, setting = looked_at()
    other = msgspec.structs.replace(setting, experiment="colder", number=2)
    referee.follow(other)
    name = {"placement_id": placed("u5", (2, 2)), "slot": 1}
    see(referee, [encode_json(msgspec.json.decode(shown(5, 0, "others")) | name)])
    referee.follow(stop(setting, "warmer won", 9))
    again = restarted(referee, tmp_path / "x.npz")
    again.take_outcomes([outcome("others", True), outcome("waits", True)])
    assert [one.score and sum(one.score.clicks) for one in again.look()] == [300, 1]


def test_what_waits_is_gone_through_once_when_a_duel_ends_and_at_no_other_experiments_end() -> None:
    referee, setting = looked_at()
    alone = create({}, "alone", arms=ARMS, layer="ranking", width=1.0, primary="ctr", guardrails=(), time_ms=1)
    other = msgspec.structs.replace(start(alone, 1.0, 2), number=2)
    referee.follow(other)
    waiting = referee.credits.pending
    referee.follow(stop(other, "enough", 9))
    assert referee.credits.pending is waiting
    referee.follow(stop(setting, "warmer won", 9))
    waiting = referee.credits.pending
    referee.follow(stop(setting, "warmer won", 9))  # the topic is read whole, every time
    assert referee.credits.pending is waiting


def test_people_whose_producer_counts_events_anew_for_each_are_all_in_the_duel() -> None:
    referee = Referee()
    referee.follow(start(draft(), 1.0, 2))
    people = range(10, 50)
    told = [msgspec.json.decode(shown(user, 0, "1")) | {"time_ms": 10 + user} for user in people]
    see(referee, [*map(encode_json, told), *map(encode_json, told)])
    assert len(referee.credits.pending) == len(people)
    referee.take_outcomes([outcome("1", user % 2 == 0, 10 + user) for user in people])
    (watched,) = referee.look()
    assert watched.score is not None
    assert watched.score.people == len(people)
    sides = [side_of(placed(f"u{user}", (1, 2)), 0) for user in people if user % 2 == 0]
    assert list(watched.score.clicks) == [sides.count(0), sides.count(1)]
