"""A receipt computed again: byte for byte, or with what differs."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import msgspec
import numpy as np
import pytest
from rich.console import Console

from scoring.assignment import Arm, Experiment
from scoring.attention import AttentionModel
from scoring.budgets import Budgets
from scoring.calibration import LIFT_PRIOR
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.exploration import Explore
from scoring.ids import id64, id64s
from scoring.ledger import Spending
from scoring.market import Cap, Fate, Market, Terms
from scoring.policies import Policy, arms_of
from scoring.units import DAY_MS
from scoring.variety import Method
from streams.cli.explain import _answer, _show, _Told
from streams.explain import recompute
from streams.receipts import worth_of
from streams.step import LaneState, Slice, Step
from streams.wire import Decision, Placement
from tests.builders import START_MS, entry, made_up_log, records

ADS = 120
TYPES = ("cpc", "cpm", "cpa", "attention")
BUDGETS = {0: 1_000_000, 1: 1_000_000}
RULES = Terms(
    reserve_micros=430,
    caps=(Cap("campaign", 1, 86_400_000), Cap("ad", 1, 86_400_000)),
    separate="category",
    blocked_ads=frozenset([id64("ad-3")]),
    rivals=tuple((id64(f"b-{n}"), 1) for n in range(2)),
    diversity=0.1,
    version="some",
)
"""Nine campaigns with one slot each, of which some are capped: no placement is whole."""


def engine_of(
    model: AttentionModel, policy: Policy | None = None, bid: int = 100, terms: Terms | None = None
) -> Engine:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert(
        [
            entry(
                f"ad-{n}", category=f"c{n % 7}/s{n % 21}", brand=f"b-{n % 5}", advertiser_id=f"a-{n % 5}",
                campaign_id=f"m-{n % 9}", budget_micros=BUDGETS.get(n % 9), bid_micros=bid + n,
                bid_type=TYPES[n % 9 % 4] if terms else "cpc",
            )
            for n in range(ADS)
        ]
    )  # fmt: skip
    return Engine(shop, model, policy or Policy(), market=Market(terms or Terms()))


def decisions(engine: Engine, budgets: Budgets | None = None) -> list[Decision]:
    """Receipts of a made-up log, both arms among them."""
    events = [event for event in made_up_log(seed=1).events if event.time_ms >= START_MS]
    taken = [replace(each, timestamp=event.time_ms) for each, event in zip(records(events), events, strict=True)]
    order = np.array([each.topic == "clicks" for each in taken], dtype=np.uint8)
    state = LaneState(0, ("a", "b"), 1)
    step = Step(engine, lambda _: 0, 300_000, 10**12, budgets=budgets)
    newest_ms = events[-1].time_ms
    effects = step.run(state, Slice(taken, order, (newest_ms, newest_ms)), START_MS + 10**10)
    values: Sequence[bytes | None] = [message.value for message in effects.messages["decisions"]]
    return [msgspec.json.decode(value, type=Decision) for value in values if value is not None]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(control_share=0.5),
        Policy(temperature=0.5, shares=Shares(count=40), slots=7),
        Policy(temperature=3.0, control_share=0.0),
        Policy(explore="thompson", temperature=1.0),
        Policy(explore="linucb", ucb_alpha=0.5, control_share=0.3),
    ],
    ids=["greedy and control", "cool", "warm", "thompson", "linucb"],
)
def test_a_receipt_gives_the_same_placement_byte_for_byte(model: AttentionModel, policy: Policy) -> None:
    made = decisions(engine_of(model, policy))
    assert len(made) >= 10
    another = engine_of(model, Policy(slots=1, temperature=9.0))  # the receipt's own policy counts
    for decision in made:
        result = recompute(decision, another)
        assert result.differences == []
        assert result.identical
        assert result.pctr_difference is not None
        assert result.pctr_difference < 1e-6


def test_a_slot_tells_when_its_ad_ends_where_that_is_before_its_placement_does(model: AttentionModel) -> None:
    """So do receipts: what was told comes about again. An ad that lasts, to the same millisecond too, tells none."""
    engine = engine_of(model, Policy(shares=Shares(count=20), slots=10))
    (made, *_) = decisions(engine)
    until_ms = msgspec.json.decode(made.placement, type=Placement).valid_until_ms
    ends = [until_ms - 1, until_ms, until_ms + 1, None]
    engine.catalogue.upsert(
        [replace(each, end_ms=ends[at % len(ends)]) for at, each in enumerate(engine.catalogue.entries)]
    )
    (decision, *_) = decisions(engine)
    placement = msgspec.json.decode(decision.placement, type=Placement)
    assert placement.valid_until_ms == until_ms
    said = {slot.ad_id: slot.until_ms for slot in placement.slots}
    assert said == {name: until_ms - 1 if int(name[3:]) % len(ends) == 0 else msgspec.UNSET for name in said}
    assert len(set(said.values())) == 2
    assert recompute(decision, engine).identical


def test_the_receipt_of_an_experiments_arm_is_recomputed_without_the_experiment(model: AttentionModel) -> None:
    engine = engine_of(model)
    engine.experiments.set(
        5, Experiment("warmth", "ranking", 0, 1, 1, (Arm("as-is", 0.5), Arm("warmer", 0.5, {"temperature": 0.5})))
    )
    made = decisions(engine)
    assert {decision.arm for decision in made} >= {"warmth/as-is", "warmth/warmer"}
    for decision in made:
        assert arms_of(decision.placement_id) == (
            [] if decision.arm == "control" else [(5, int(decision.arm == "warmth/warmer"))]
        )
        assert decision.allocation == (1.0 if decision.arm == "control" else 0.5)
        assert recompute(decision, engine_of(model)).identical


def test_the_receipt_of_rankings_that_explore_in_turns_is_recomputed_without_the_experiment(
    model: AttentionModel,
) -> None:
    engine = engine_of(model)
    arms = (Arm("sampled", 0.5, {"explore": "thompson"}), Arm("bold", 0.5, {"explore": "linucb", "ucb_alpha": 0.5}))
    engine.experiments.set(5, Experiment("turns", "ranking", 0, 1, 1, arms, interleaved=True))
    made = [decision for decision in decisions(engine) if decision.other is not None]
    assert len(made) >= 5
    for decision in made:
        assert (decision.explore, decision.other and decision.other.explore) == ("thompson", "linucb")
        assert min(decision.propensities) < 1
        assert recompute(decision, engine_of(model)).differences == []


def test_a_pinned_ad_stands_in_its_slot_for_everybody_and_receipts_tell_so(model: AttentionModel) -> None:
    policy = Policy(shares=Shares(count=20), slots=5, control_share=0.5)
    pins = ((id64("ad-4"), 2), (id64("ad-13"), 0), (id64("ad-22"), 5))  # the last beyond the slots that there are
    made = decisions(engine_of(model, policy, terms=Terms(pinned=pins)))
    assert {decision.arm for decision in made} == {"engine", "control"}
    for decision in made:
        placement = msgspec.json.decode(decision.placement, type=Placement)
        assert (placement.slots[0].ad_id, placement.slots[2].ad_id) == ("ad-13", "ad-4")
        assert recompute(decision, engine_of(model, terms=Terms(pinned=pins))).identical


@pytest.mark.parametrize("first", [0, 1], ids=["explores first", "explores second"])
def test_the_receipt_of_rankings_of_one_model_is_recomputed_whichever_of_them_explores(
    model: AttentionModel, first: int
) -> None:
    engine = engine_of(model)
    arms = (Arm("sampled", 0.5, {"explore": "thompson"}), Arm("cool", 0.5, {"temperature": 0.5}))
    told = arms if not first else arms[::-1]
    engine.experiments.set(5, Experiment("turns", "ranking", 0, 1, 1, told, interleaved=True))
    made = [decision for decision in decisions(engine) if decision.other is not None]
    sampled = [decision.evidence or (decision.other and decision.other.evidence) or b"" for decision in made]
    assert any((np.frombuffer(evidence, dtype=np.float32) != LIFT_PRIOR).any() for evidence in sampled)
    for decision in made:
        assert recompute(decision, engine_of(model)).differences == []


def test_a_receipt_whose_evidence_was_tampered_with_does_not_draw_as_it_says(model: AttentionModel) -> None:
    decision = decisions(engine_of(model, Policy(explore="thompson", control_share=0.0)))[0]
    known = np.full(len(decision.candidates) // 8, 400.0, dtype=np.float32)
    assert np.frombuffer(decision.evidence, dtype=np.float32).max() < 100
    result = recompute(msgspec.structs.replace(decision, evidence=known.tobytes()), engine_of(model))
    assert any("propensities" in difference or "rank" in difference for difference in result.differences)


def test_an_exploration_of_another_version_is_said_to_be_unknown(model: AttentionModel) -> None:
    decision = decisions(engine_of(model))[0]
    (difference,) = recompute(msgspec.structs.replace(decision, explore="exp3"), engine_of(model)).differences
    assert "explored by 'exp3'; known here are plackett-luce, thompson, linucb" in difference


def test_an_ad_changed_since_is_named(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    shown = msgspec.json.decode(decision.placement)["slots"][0]["ad_id"]
    engine.catalogue.upsert([entry(shown, category="elsewhere", bid_micros=1)])
    result = recompute(decision, engine)
    assert not result.identical
    assert any(shown in difference for difference in result.differences)


def test_a_receipt_that_was_tampered_with_does_not_rank_as_it_says(model: AttentionModel) -> None:
    engine = engine_of(model, Policy(control_share=0.0))
    decision = decisions(engine)[0]
    pctr = np.frombuffer(decision.pctr, dtype=np.float32).copy()
    pctr[decision.chosen[0]] /= 10
    result = recompute(msgspec.structs.replace(decision, pctr=pctr.tobytes()), engine)
    assert not result.identical
    assert any("rank" in difference for difference in result.differences)


def test_chances_that_were_written_into_a_receipt_are_not_believed(model: AttentionModel) -> None:
    """Experiments are weighed by them, and the placement alone would not tell: nothing else of it changes."""
    engine = engine_of(model, Policy(temperature=0.5, control_share=0.0))
    decision = decisions(engine)[0]
    first, *others = decision.propensities
    result = recompute(msgspec.structs.replace(decision, propensities=(first / 2, *others)), engine)
    assert not result.identical
    assert result.differences == ["the recorded propensities are not those of the recorded scores"]


def test_a_receipt_whose_candidates_are_gone_is_not_computed_again_from_others(model: AttentionModel) -> None:
    decision = decisions(engine_of(model))[0]
    without = engine_of(model)
    gone = msgspec.json.decode(decision.placement)["slots"][0]["ad_id"]
    kept = [entry for entry in without.catalogue.entries if entry.content.item_id != gone]
    emptier = Catalogue(model.encode, model.dim)
    emptier.upsert(kept)
    result = recompute(decision, Engine(emptier, model, Policy()))
    assert not result.identical
    assert result.scored is None
    said = f"1 of {len(decision.candidates) // 8} candidates are no longer in the ads topic"
    assert result.differences == [said]


def test_another_model_is_said_to_be_another(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    versions = decision.versions | {"model": "another-1"}
    result = recompute(msgspec.structs.replace(decision, versions=versions), engine)
    (difference,) = result.differences
    assert "another-1" in difference
    assert "--model DIR" in difference


def test_of_a_receipt_that_is_not_recomputed_no_difference_of_click_rates_is_told(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    bad = msgspec.structs.replace(decision, versions=decision.versions | {"model": "another-1"})
    told = {}
    for one in (decision, bad):
        result, said = recompute(one, engine), io.StringIO()
        _show(Console(file=said, width=200), one, _Told.of(one), result)
        told[result.pctr_difference is None] = "difference of a recomputed pCTR" in said.getvalue()
    assert told == {False: True, True: False}


def test_machines_are_told_what_earned_each_slot_and_what_kept_the_others_out(model: AttentionModel) -> None:
    whole_shop = Policy(shares=Shares(ADS))
    engine = engine_of(model, whole_shop, terms=Terms(blocked_ads=RULES.blocked_ads, version="some"))
    decision = decisions(engine)[-1]
    answer = _answer(decision, _Told.of(decision), recompute(decision, engine))
    told = msgspec.json.decode(msgspec.json.encode(answer))
    placed = msgspec.json.decode(decision.placement)
    assert told["identical"]
    assert [{name: each[name] for name in each if name != "examined"} for each in told["slots"]] == placed["slots"]
    assert all(0 < each["examined"] <= 1 for each in told["slots"])
    assert told["candidates"] == len(told["slots"]) + sum(told["not_placed"].values())
    assert told["not_placed"]["blocked"] == 1


def test_of_two_placements_with_one_id_as_topics_made_anew_give_again_the_time_tells_which_is_explained(
    model: AttentionModel,
) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    told, result, said = _Told.of(decision), recompute(decision, engine), io.StringIO()
    _show(Console(file=said, width=200), decision, told, result)
    when = datetime.fromtimestamp(decision.time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    assert f"made at {when}" in said.getvalue()
    assert _answer(decision, told, result)["time_ms"] == decision.time_ms


def test_a_receipt_of_a_fate_that_there_is_not_cannot_be_told(model: AttentionModel) -> None:
    (decision, *_) = decisions(engine_of(model, terms=RULES))
    with pytest.raises(ValueError, match="50"):
        _Told.of(msgspec.structs.replace(decision, fates=bytes([50]) + decision.fates[1:]))


@pytest.mark.parametrize("diversify_by", ["mmr", "dpp"])
@pytest.mark.parametrize(
    "policy",
    [Policy(), Policy(temperature=0.7), Policy(explore="thompson"), Policy(explore="linucb")],
    ids=["greedy", "warm", "thompson", "linucb"],
)
def test_a_receipt_under_rules_and_pacing_gives_the_same_placement_with_the_rules_alone(
    model: AttentionModel, policy: Policy, diversify_by: Method
) -> None:
    terms = replace(RULES, diversify_by=diversify_by)
    whole_shop = Shares(ADS)  # so that ads which are barred from every placement are candidates, too
    engine = engine_of(model, replace(policy, control_share=0.2, shares=whole_shop), 1_000, terms)
    budgets = Budgets(engine.market, engine.catalogue)
    for campaign, spent in (("m-0", 1_000_000), ("m-1", 990_000)):  # all, and more than the plan
        budgets.tell(1, "", Spending(campaign, START_MS // DAY_MS, spent, 9_000, 500, 90, 100.0))
    engine.market.favour(id64s(["a-2"]), np.array([1.3]))
    made = decisions(engine, budgets)
    unpaced = engine_of(model, None, 1_000, terms)
    fates: Counter[int] = Counter()
    for decision in made:
        again = recompute(decision, unpaced)
        assert again.differences == []
        np.testing.assert_allclose(worth_of(decision), again.scored.decided.worth[0], rtol=1e-6)
        placement = msgspec.json.decode(decision.placement, type=Placement)
        fate = np.frombuffer(decision.fates, dtype=np.uint8)
        assert len(fate) == len(decision.candidates) // 8
        assert [slot.slot for slot in placement.slots] == [int(fate[at]) - Fate.WON for at in decision.chosen]
        assert "m-0" not in {slot.campaign_id for slot in placement.slots}
        fates.update(fate.tolist())
    assert {Fate.BLOCKED, Fate.CAPPED, Fate.BUDGET_SPENT, Fate.BELOW_RESERVE, Fate.KEPT_APART} <= fates.keys()
    assert all(len(decision.chosen) < 10 for decision in made)


@pytest.mark.parametrize("explore", get_args(Explore))
def test_a_receipt_tells_what_candidates_were_worth_where_that_is_more_than_bid_times_click_rate(
    model: AttentionModel, explore: Explore
) -> None:
    engine = engine_of(model, Policy(explore=explore, ucb_alpha=0.5, control_share=0.0))
    engine.catalogue.upsert([replace(each, budget_micros=None) for each in engine.catalogue.entries])
    for decision in decisions(engine):
        again = recompute(decision, engine)
        np.testing.assert_allclose(worth_of(decision), again.scored.decided.worth[0], rtol=1e-6)
        assert bool(decision.worth) is (explore == "linucb")


def test_the_price_of_a_slot_is_what_the_next_best_was_worth(model: AttentionModel) -> None:
    made = decisions(engine_of(model, Policy(control_share=0.0), 10_000))
    assert made
    for decision in made:
        slots = msgspec.json.decode(decision.placement, type=Placement).slots
        assert slots
        pctr = np.frombuffer(decision.pctr, dtype=np.float32).astype(float)
        bids = np.frombuffer(decision.bids_micros, dtype=np.int64)
        worth = np.sort(pctr * bids)[::-1]
        for slot, place in zip(slots, decision.chosen, strict=True):
            assert slot.price_micros == min(math.ceil(worth[slot.slot + 1] / pctr[place] - 1e-6), bids[place])


def test_other_rules_than_those_that_decided_are_named(model: AttentionModel) -> None:
    decision = decisions(engine_of(model, None, 1_000, RULES))[0]
    result = recompute(decision, engine_of(model, None, 1_000))
    assert any("SALIENCE_RULES" in difference and "'some'" in difference for difference in result.differences)
