"""A lane's ledger within the step: charged by the placements' own prices, kept, told, and stopping what is spent."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from scoring.attention import AttentionModel
from scoring.attribution import Attribution
from scoring.budgets import Budgets
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Source
from scoring.ids import id64s
from scoring.ledger import FIGURES, KEPT_DAYS
from scoring.market import Fate
from scoring.policies import Policy, arm_tag
from scoring.units import DAY_MS
from streams.campaigns import campaigns
from streams.client import priced
from streams.feeds.campaigns import tell
from streams.lanes.ledger import KEY, TOUCHES, LaneLedger
from streams.lanes.queues import LaneQueues
from streams.logs import Event
from streams.placing import _seals_of
from streams.step import Effects, LaneState, Slice, Step
from streams.wire import CampaignMetrics, Click, Decision, Placement
from tests.builders import START_MS, Record, click, entry, impression, record

BUDGET = 60_000


def step_of(model: AttentionModel, lane: int = 0, owed: Attribution | None = None) -> Step:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert([
        entry(f"ad-{n}", campaign_id=f"c-{n % 3}", advertiser_id=f"a-{n % 3}",
              bid_micros=1_000 + n if n % 3 else 20_000, budget_micros=None if n % 3 else BUDGET)
        for n in range(30)
    ])  # fmt: skip
    engine = Engine(shop, model, Policy(slots=4, shares=Shares(count=30), control_share=0.0))
    return Step(engine, lambda _: lane, 300_000, 10**12, attribution=owed or Attribution())


class Played:
    """One lane and one shopper: events in, placements out."""

    def __init__(self, step: Step, lane: int = 0, state: LaneState | None = None) -> None:
        self.step, self.state = step, state or LaneState(lane, ("a", "b"), 1)
        self.offsets = [0, 0]
        self.kept: dict[bytes, bytes | None] = {}
        self.told: list[Record] = []
        self.placement: Placement | None = None
        self.decision: Decision | None = None

    def take(self, events: Sequence[Event]) -> Effects:
        taken = []
        for event in events:
            source = isinstance(event, Click)
            taken.append(record(event, self.offsets[source]))
            self.offsets[source] += 1
        order = np.array([isinstance(event, Click) for event in events], dtype=np.uint8)
        newest = max(event.time_ms for event in events)
        return self.run(Slice(taken, order, (newest, newest)), newest)

    def run(self, taken: Slice, now_ms: int) -> Effects:
        effects = self.step.run(self.state, taken, now_ms)
        self.kept |= {message.key: message.value for message in effects.messages["state-changelog"] if message.key}
        self.told += [
            Record("campaign-metrics", 0, at, 0, message.key, message.value)
            for at, message in enumerate(effects.messages["campaign-metrics"])
        ]
        for message in effects.messages["placements"]:
            self.placement = msgspec.json.decode(message.value or b"", type=Placement)
        for message in effects.messages["decisions"]:
            self.decision = msgspec.json.decode(message.value or b"", type=Decision)
        return effects

    def answer(self, at: int, **told: Any) -> list[Event]:
        """The first slot's ad shown and clicked, ``at`` seconds after the start, with its price."""
        placement = self.placement
        assert placement is not None
        shown_ms = START_MS + 1_000 * at
        about: dict[str, Any] = {"ad_id": placement.slots[0].ad_id, "placement_id": placement.placement_id}
        return [
            priced(impression(time_ms=shown_ms, **about), placement),
            priced(click(time_ms=shown_ms + 500, impression_time_ms=shown_ms, **about, **told), placement),
        ]


def metrics(played: Played) -> dict[str, CampaignMetrics]:
    """The last of each campaign."""
    told = [msgspec.json.decode(each.value or b"", type=CampaignMetrics) for each in played.told]
    return {each.campaign_id: each for each in told}


def test_what_was_clicked_is_charged_at_the_price_of_its_slot_and_told(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    placement = played.placement
    assert placement is not None
    first = placement.slots[0]
    effects = played.take(played.answer(10, kind="purchase", value_micros=70_000, viewed_s=0.5))
    told = metrics(played)[first.campaign_id]
    assert first.price_micros == told.today.spent_micros
    assert told.today.spent_micros == told.total.spent_micros == first.price_micros > 0
    assert (told.today.impressions, told.today.clicks, told.today.purchases) == (1, 1, 1.0)
    assert (told.today.value_micros, told.today.spread_value_micros) == (70_000, 70_000)
    assert (told.today.viewed_s, told.today.spread_purchases) == (0.5, 1.0)
    assert effects.counts["misquoted"] == 0


def test_a_campaign_tells_the_hours_of_the_day_for_which_its_budget_is_planned(model: AttentionModel) -> None:
    step = step_of(model)
    starts_ms, ends_ms = START_MS - 1_000, START_MS + 3_600_000
    hours = {"start_ms": starts_ms, "end_ms": ends_ms}
    step.engine.catalogue.upsert([entry("short", campaign_id="short", bid_micros=10**9, budget_micros=10**12, **hours)])
    played = Played(step)
    played.take([impression(ad_id="ad-1")])
    played.take(played.answer(10))
    told = metrics(played)
    assert (told["short"].starts_ms, told["short"].ends_ms) == (starts_ms, ends_ms)
    played.take([impression(ad_id="ad-1", time_ms=ends_ms + 1_000)])
    played.take(played.answer(3_700))
    others = [one for name, one in metrics(played).items() if name != "short"]
    assert others
    assert all((one.starts_ms, one.ends_ms) == (0, None) for one in others)


def test_a_campaign_is_ranked_by_purchases_as_they_are_charged_not_by_all_that_are_credited(
    model: AttentionModel,
) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    events = [*played.answer(10), *played.answer(60, kind="purchase", event_id="answers")[1:]]
    shown_ms, bought = START_MS + 10_000, {"ad_id": events[0].ad_id, "kind": "purchase"}
    events[-1] = msgspec.structs.replace(events[-1], impression_time_ms=shown_ms)
    events += [click(time_ms=START_MS + 61_000, event_id=f"item-{n}", **bought) for n in range(3)]
    assert played.placement is not None
    campaign = played.placement.slots[0].campaign_id
    played.take(events)
    told, market = metrics(played)[campaign].total, played.step.engine.market
    assert (told.clicks, told.purchases, told.sold) == (1, 4.0, 1)
    slot = played.step.engine.catalogue.slots_of(id64s([events[0].ad_id]))
    offers = market.offers(played.step.engine.catalogue, slot[None])
    assert offers is not None
    assert offers.conversion.item() == pytest.approx((1 + 100 * market.terms.conversion) / 101)


def test_a_day_that_has_ended_is_told_beside_the_one_that_has_begun(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    assert played.placement is not None
    campaign, (today, *_), tomorrow = played.placement.slots[0].campaign_id, played.answer(10), played.answer(86_410)
    played.take([today])
    first = metrics(played)[campaign]
    assert (first.before_day, first.before) == (0, None)
    played.take(tomorrow)
    second = metrics(played)[campaign]
    assert (second.day, second.before_day, second.before) == (first.day + 1, first.day, first.today)
    assert (second.today.impressions, second.today.clicks, second.total.impressions) == (1, 1, 2)


def test_clicks_before_and_after_midnight_that_are_fetched_at_once_are_each_billed_on_their_day(
    model: AttentionModel,
) -> None:
    played, fetched, now_ms = Played(step_of(model)), LaneQueues(100, 10**6, 0), START_MS + 2 * 86_400_000
    played.take([impression(ad_id="ad-1")])
    assert played.placement is not None
    days = played.answer(10), played.answer(86_410)
    for source in Source:
        fetched.put(source, [record(each[source], at) for at, each in enumerate(days, played.offsets[source])])
        fetched.sources[source].caught_up = True
    while (taken := fetched.take(played.state.watermarks_ms, now_ms, 0, 100)) is not None:
        played.run(taken, now_ms)
    told = metrics(played)[played.placement.slots[0].campaign_id]
    assert len(fetched) == 0
    assert (told.before, told.before_billed_micros) == (told.today, told.today.spent_micros)
    assert (told.day - told.before_day, told.today.clicks, told.total.clicks) == (1, 1, 2)


def test_an_event_that_tells_another_price_than_its_placement_is_counted_and_not_charged(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    wrong = [msgspec.structs.replace(event, price_micros=1) for event in played.answer(10)]
    effects = played.take(wrong)
    assert effects.counts["misquoted"] == 2
    assert all(each.total.spent_micros == 0 for each in metrics(played).values())


def test_a_lane_that_moves_takes_its_ledger_along_and_charges_nothing_twice(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    events = played.answer(10)
    played.take(events)
    parts = {key: value for key, value in played.kept.items() if key.startswith(KEY) and value is not None}
    restored = LaneLedger.restore(parts)
    assert restored.parts() == played.state.ledger.parts() == parts
    state = LaneState(0, ("a", "b"), 1, store=played.state.store, ledger=restored)
    moved = Played(step_of(model), state=state)
    moved.offsets = played.offsets
    before = metrics(played)
    moved.take([*events, click(ad_id="ad-2", time_ms=START_MS + 60_000)])  # a producer sends the two again
    assert {name: each.total.spent_micros for name, each in (before | metrics(moved)).items()} == {
        name: each.total.spent_micros for name, each in before.items()
    }
    assert moved.step.budgets is not None
    for name, each in before.items():  # the new owner knows before anything is told on the topic
        assert moved.step.budgets.spent_micros(name) == each.today.spent_micros


def test_a_campaign_that_has_long_had_no_event_leaves_the_changelog_and_the_topic(model: AttentionModel) -> None:
    played, known = Played(step_of(model)), {b"0/c-0/", b"0/c-1/"}
    played.take([impression(ad_id="ad-1")])
    played.take(played.answer(10))
    for day, keys in ((KEPT_DAYS, set()), (KEPT_DAYS + 1, known)):
        effects = played.take([click(ad_id="ad-2", time_ms=START_MS + day * DAY_MS)])
        assert {each.key for each in effects.messages["campaign-metrics"] if not each.value} == keys
        kept = {key: value for key, value in played.kept.items() if value and key.startswith(KEY)}
        assert (kept, len(kept)) == (played.state.ledger.parts(), len(known - keys))


def test_a_ledger_that_is_full_is_restored_whole_in_whatever_order_its_changelog_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scoring.ledger.CELLS_MAX", 3)
    full = LaneLedger()
    for name, charged in ((("x", "1"), 100), (("x", "2"), 200), (("x", "3"), 300), (("x", "4"), 400), (("y", ""), 7)):
        figures = np.zeros((1, len(FIGURES)), dtype=np.int64)
        figures[0, FIGURES.index("charged")] = charged
        full.ledger.add(5, [name], figures)
    assert full.ledger.names == [("x", "1"), ("x", "2"), ("x", "3"), ("x", ""), ("y", "")]  # "4" is not apart
    assert (LaneLedger().ledger.full_share, full.ledger.full_share) == (0, 5 / 3)  # campaigns are let in beyond it
    parts = full.parts()
    for order in (parts, dict(reversed(parts.items()))):
        assert LaneLedger.restore(order).parts() == parts


def test_what_was_learned_of_touches_moves_with_the_lane_where_the_rules_ask_for_it(model: AttentionModel) -> None:
    plain, played = Played(step_of(model)), Played(step_of(model, owed=Attribution(spread="learned")))
    for each in (plain, played):
        each.take([impression(ad_id="ad-1")])
        each.take(each.answer(10))
        each.take(each.answer(20, kind="purchase", value_micros=1_000))
    assert TOUCHES not in plain.kept
    kept = {key: value for key, value in played.kept.items() if value is not None}
    restored = LaneLedger.restore(kept)
    assert restored.touches.kept == played.state.ledger.touches.kept == kept[TOUCHES]
    assert restored.touches.purchases == 1
    assert restored.parts()[TOUCHES] == kept[TOUCHES]
    played.take([impression(ad_id="ad-1", time_ms=START_MS + 90_000)])  # of nothing that can be learned
    assert not played.state.ledger.touches.changed


@pytest.mark.parametrize("size", [1, 4, 5])
def test_a_purchase_is_owed_to_the_click_before_it_and_not_to_the_next_one(model: AttentionModel, size: int) -> None:
    played = Played(step_of(model))
    played.step.engine.catalogue.upsert(
        [entry(ad, campaign_id=campaign, advertiser_id="arco") for ad, campaign in (("x", "one"), ("y", "two"))]
    )
    open_, later = [
        impression(ad_id="y", time_ms=START_MS + 2_000),
        click(ad_id="y", time_ms=START_MS + 9_000, impression_time_ms=START_MS + 2_000),
    ]
    first = [impression(ad_id="x"), click(ad_id="x", time_ms=START_MS + 1_000, impression_time_ms=START_MS)]
    bought = click(ad_id="x", event_id="p", time_ms=START_MS + 6_000, kind="purchase", value_micros=7)
    events: list[Event] = [*first, open_, bought, later]
    for start in range(0, len(events), size):
        played.take(events[start : start + size])
    assert {name: each.total.purchases for name, each in metrics(played).items()} == {"one": 1.0, "two": 0.0}


def under(tag: str, placement: Placement, engine: Engine) -> Placement:
    """The placement as it would be under an experiment's arm."""
    name, slots = placement.placement_id + tag, placement.slots
    ads = engine.catalogue.slots_of(id64s([slot.ad_id for slot in slots]))
    prices = np.array([slot.price_micros for slot in slots])
    seals = _seals_of(engine, id64s([name] * len(slots)), ads, prices)
    sealed = tuple(msgspec.structs.replace(slot, seal=seal) for slot, seal in zip(slots, seals, strict=True))
    return msgspec.structs.replace(placement, placement_id=name, slots=sealed)


def test_a_purchase_without_a_seal_counts_for_arms_that_there_are_and_makes_up_none(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.step.engine.catalogue.upsert([entry("x", campaign_id="one", advertiser_id="arco")])
    tag = arm_tag([(1, 0)])
    known = played.state.ledger.ledger
    known.add(START_MS // 86_400_000, [("one", "1-0")], np.ones((1, len(FIGURES)), dtype=np.int64))
    shown = [impression(ad_id="x"), click(ad_id="x", time_ms=START_MS + 1_000, impression_time_ms=START_MS)]
    bought: list[Event] = [
        click(
            ad_id="x", event_id=f"p{at}", time_ms=START_MS + 2_000, kind="purchase", value_micros=7, placement_id=name
        )
        for at, name in enumerate(["0-1-1-a" + tag, *(f"x.made-up-{n}" for n in range(9))])
    ]
    played.take([*shown, *bought])
    purchases = {name: known.of(cell)[1][2, FIGURES.index("last")] for cell, name in enumerate(known.names)}
    assert purchases == {("one", "1-0"): 1 + 1_000, ("one", ""): 9_000}


def test_a_purchase_counts_for_the_arm_of_a_sealed_impression_in_its_own_slice_or_an_earlier_one(
    model: AttentionModel,
) -> None:
    for size in (1, 3, 5):
        played = Played(step_of(model))
        played.take([impression(ad_id="ad-1")])
        assert played.placement is not None
        played.placement = under(arm_tag([(1, 0)]), played.placement, played.step.engine)
        first, later = played.answer(10), played.answer(40)
        bought = click(
            ad_id=first[0].ad_id, event_id="p", time_ms=START_MS + 30_000, kind="purchase", value_micros=7,
            placement_id=played.placement.placement_id,
        )  # fmt: skip
        events = [*first, bought, *later]
        for start in range(0, len(events), size):
            played.take(events[start : start + size])
        cells = played.state.ledger.ledger
        found = {arm for cell, (_, arm) in enumerate(cells.names) if cells.of(cell)[1][2, FIGURES.index("last")]}
        assert found == {"1-0"}


@pytest.mark.parametrize("size", [1, 3, 5])
def test_what_is_sealed_after_a_purchase_changes_nothing_of_its_arm_wherever_a_slice_ends(
    model: AttentionModel, size: int
) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    assert played.placement is not None
    played.placement = under(arm_tag([(1, 0)]), played.placement, played.step.engine)
    sealed = played.answer(30)
    ad = sealed[0].ad_id
    first = [impression(ad_id=ad), click(ad_id=ad, time_ms=START_MS + 1_000, impression_time_ms=START_MS)]
    bought = click(
        ad_id=ad, event_id="p", time_ms=START_MS + 20_000, kind="purchase", value_micros=7,
        placement_id=played.placement.placement_id,
    )  # fmt: skip
    events: list[Event] = [*first, bought, *sealed]
    for start in range(0, len(events), size):
        played.take(events[start : start + size])
    cells = played.state.ledger.ledger
    found = {arm for cell, (_, arm) in enumerate(cells.names) if cells.of(cell)[1][2, FIGURES.index("last")]}
    assert found == {""}


def test_a_campaign_whose_budget_is_spent_is_in_no_placement_from_the_same_slice_on(model: AttentionModel) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    at = 0
    while metrics(played).get("c-0", None) is None or metrics(played)["c-0"].today.spent_micros < BUDGET:
        at += 10
        assert at < 2_000, "the budget was to be reached"
        effects = played.take(played.answer(at))
    assert played.placement is not None
    assert "c-0" not in {slot.campaign_id for slot in played.placement.slots}
    assert played.decision is not None
    assert Fate.BUDGET_SPENT in set(played.decision.fates)
    assert metrics(played)["c-0"].budget_micros == BUDGET
    assert effects.counts["placements"] == 1


def test_another_worker_knows_from_the_topic_what_was_spent(model: AttentionModel) -> None:
    played = Played(step_of(model, 3), lane=3)
    played.take([impression(ad_id="ad-1")])
    for at in range(10, 200, 10):
        played.take(played.answer(at))
    own = played.step.budgets
    assert own is not None
    other = Budgets(own.market, own.catalogue)
    broken = [Record("campaign-metrics", 0, 0, 0, b"x", b"{"), Record("campaign-metrics", 0, 1, 0, b"x", None)]
    assert tell(other, [*broken, *played.told, *reversed(played.told)]) == 1
    for campaign in ("c-0", "c-1", "c-2"):
        assert other.spent_micros(campaign) == own.spent_micros(campaign)
    assert any(other.spent_micros(f"c-{number}") for number in range(3))


def test_a_lowered_budget_takes_nothing_of_what_was_owed_from_what_lanes_tell_before_and_after_a_restart(
    model: AttentionModel,
) -> None:
    played = Played(step_of(model))
    played.take([impression(ad_id="ad-1")])
    for at in range(10, 1_000, 10):
        if (told := metrics(played).get("c-0")) is not None and told.today.spent_micros > BUDGET // 4:
            break
        played.take(played.answer(at))
    late = played.answer(at)  # of a placement that was out before the budget was lowered
    for step, shown in ((played.step, late[:1]), (step_of(model), late[1:])):
        budgets = step.budgets
        assert budgets is not None
        tell(budgets, played.told)
        step.engine.catalogue.upsert([
            entry(f"ad-{n}", campaign_id="c-0", advertiser_id="a-0", bid_micros=20_000, budget_micros=1)
            for n in range(0, 30, 3)
        ])  # fmt: skip
        played.step = step
        played.take(shown)
    assert metrics(played)["c-0"].today.spent_micros > told.today.spent_micros > BUDGET // 4
    (one,) = (one for one in campaigns(metrics(played).values()) if one.campaign_id == "c-0")
    assert (one.budget_micros, one.billed_micros) == (1, told.today.spent_micros)
