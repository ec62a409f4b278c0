"""Training examples are what serving would have seen: nothing from the future, nothing from the same moment."""

import random
from collections.abc import Sequence
from dataclasses import fields

import msgspec
import numpy as np
import pytest

from onnx_models.examples import Examples, Items, collect, in_time_order, unanswered
from scoring.catalogue import Catalogue
from scoring.events import Events, Kind, Outcome, Source
from scoring.gathering import gather
from scoring.ids import id64
from scoring.inputs import RATED, REVIEWED
from scoring.rates import RateTable, counts_of
from scoring.rows import RowStore
from scoring.update import apply
from streams.feeds.catalogue import entry_of
from streams.feeds.tones import history_of
from streams.logs import Event, Log, in_order
from streams.wire import Click, Impression
from tests.builders import START_MS, catalogue, click, columns_of, entry, impression, made_up_log, tone

ANSWERS = ("label", "converted", "viewed_s")
INPUTS = [field.name for field in fields(Examples) if field.name not in ANSWERS]


def examples_of(events: Sequence[Event], ads: int = 20) -> Examples:
    store = RowStore()
    return collect(columns_of(store, events), store, catalogue(ads))[0]


def labels_of(*events: Event) -> list[float]:
    return examples_of(in_order(events)).label.tolist()


def test_a_click_that_answers_an_impression_is_its_label() -> None:
    shown = impression()
    assert labels_of(shown) == [0]
    assert labels_of(shown, click(time_ms=START_MS + 900, impression_time_ms=START_MS)) == [1]


@pytest.mark.parametrize(("kind", "label"), [("view", 0), ("click", 1), ("cart", 1), ("purchase", 1)])
def test_a_look_alone_is_no_click_and_more_than_a_click_is_one(kind: str, label: float) -> None:
    answer = click(time_ms=START_MS + 900, impression_time_ms=START_MS, kind=kind, viewed_s=30.0)
    assert labels_of(impression(), answer) == [label]


def test_of_several_answers_the_longest_look_counts_and_a_purchase_converts() -> None:
    answers = [
        click(time_ms=START_MS + 900, impression_time_ms=START_MS, event_id="a", kind="view", viewed_s=3.5),
        click(time_ms=START_MS + 901, impression_time_ms=START_MS, event_id="b", kind="view", viewed_s=12.25),
        click(time_ms=START_MS + 902, impression_time_ms=START_MS, event_id="c", kind="purchase"),
    ]
    examples = examples_of(in_order([impression(), *answers, impression(ad_id="ad-2")]))
    by_item = dict(zip(examples.item.tolist(), zip(examples.converted, examples.viewed_s, strict=True), strict=True))
    assert sorted(by_item.values()) == [(0, 0), (1, 12.25)]


def test_a_click_after_the_window_is_none_as_for_the_click_layer_and_it_is_counted() -> None:
    shown = [impression(time_ms=START_MS + away) for away in (0, 10_000, 20_000)]
    answers = [
        click(time_ms=one.time_ms + after_ms, impression_time_ms=one.time_ms, kind=kind, viewed_s=2.0)
        for one, after_ms, kind in zip(shown, (1_000, 1_001, 1_001), ("click", "click", "purchase"), strict=True)
    ]
    store = RowStore()
    told = columns_of(store, in_order([*shown, *answers]))
    found = collect(told, store, catalogue(), window_ms=1_000)
    assert found.examples.label.tolist() == [1, 0, 0]
    assert found.late == 2
    assert found.examples.converted.tolist() == [0, 0, 1]
    assert found.examples.viewed_s.tolist() == [2.0, 2.0, 2.0]


def test_what_names_an_item_alone_is_its_id_and_a_brand_that_no_other_has() -> None:
    shop = Catalogue()
    shop.upsert([entry("ad-1", brand="alone"), entry("ad-2", brand="both"), entry("ad-3", brand="both")])
    items = Items.of(shop)
    shared = [set(tokens[~own & (tokens > 0)].tolist()) for tokens, own in zip(items.tokens, items.own, strict=True)]
    assert items.own[:, 0].all()
    assert shared[1] == shared[2]
    assert shared[0] < shared[1]
    assert len(shared[1] - shared[0]) == 1


def test_state_goes_on_where_a_first_part_left_it() -> None:
    log, ads = made_up_log(8, events=200, users=5, surface="feed"), catalogue()
    cut_ms = log.events[120].time_ms
    whole, parted, rates = RowStore(), RowStore(), RateTable()
    columns = columns_of(whole, log.events)
    columns_of(parted, log.events)
    together = collect(columns, whole, ads).examples
    collect(columns[columns["time_ms"] < cut_ms], parted, ads, rates=rates)
    later, place, *_ = collect(columns[columns["time_ms"] >= cut_ms], parted, ads, rates=rates)
    expected = together.at(together.time_ms >= cut_ms)
    for field in INPUTS:
        np.testing.assert_allclose(getattr(later, field), getattr(expected, field), atol=1e-5, err_msg=field)
    assert len(place) == len(later)


def test_state_that_stands_still_is_that_of_the_moment_before() -> None:
    store, ads = RowStore(), catalogue()
    told = columns_of(store, [click(time_ms=START_MS), impression(ad_id="ad-2", time_ms=START_MS + 9_000)])
    collect(told[:1], store, ads)
    before = store.rows.tobytes()
    twice = unanswered(np.concatenate([told[1:], told[1:]]), store, ads)
    assert store.rows.tobytes() == before
    assert (twice.history[0] == twice.history[1]).all()
    assert (twice.history >= 0).sum(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        {"user": "user-2"},
        {"ad_id": "ad-2"},
        {"impression_time_ms": START_MS - 1},
        {"impression_time_ms": None},
    ],
)
def test_a_click_that_answers_something_else_is_no_label(answer: dict[str, object]) -> None:
    told = {"time_ms": START_MS + 900, "impression_time_ms": START_MS} | answer
    assert labels_of(impression(), click(**told)) == [0]  # type: ignore[arg-type]  # the fields are as the test says


def test_an_impression_told_twice_is_one_example() -> None:
    assert len(examples_of([impression(), impression()])) == 1


def test_ids_that_are_counted_for_each_person_and_topic_anew_repeat_nothing() -> None:
    shown = [impression(user, event_id="1") for user in ("user-1", "user-2")]
    clicked = click("user-2", event_id="1", time_ms=START_MS + 900, impression_time_ms=START_MS)
    before = click("user-1", event_id="1", time_ms=START_MS - 1)
    assert sorted(labels_of(before, *shown, clicked)) == [0, 1]


def test_an_impression_of_an_ad_that_nobody_knows_is_no_example() -> None:
    assert len(examples_of([impression(ad_id="nobody's"), impression(time_ms=START_MS + 1)])) == 1


def test_events_of_one_user_and_moment_do_not_see_one_another() -> None:
    together = [
        impression(ad_id="ad-2"),
        impression(ad_id="ad-3"),
        click(ad_id="ad-4"),
        impression(ad_id="ad-2", time_ms=START_MS + 60_000),
    ]
    examples = examples_of(together)
    assert (examples.history[:2] == -1).all()
    assert not examples.interest[:2].any()
    assert set(examples.history[2].tolist()) == {-1, 2, 3, 4}
    assert examples.interest[2].any()


def test_a_history_holds_what_others_did_for_nobody_but_them() -> None:
    events = [
        impression("user-1"),
        impression("user-2", "ad-5", START_MS + 1),
        impression("user-1", time_ms=START_MS + 5_000),
    ]
    assert (examples_of(events).history >= 0).sum(axis=1).tolist() == [0, 0, 1]


def _intruder(rng: random.Random, user: str, after: Event) -> Event:
    """Something that happens at the moment of ``after`` or later, and answers no impression."""
    time_ms = after.time_ms + rng.choice([0, 1, 1_000, 10_000_000])
    fields_ = {"ad_id": f"ad-{rng.randrange(20)}", "time_ms": time_ms, "event_id": f"intruder-{rng.random()}"}
    if rng.random() < 0.5:
        return impression(user, **fields_)  # type: ignore[arg-type]  # names and times as the builder takes them
    kind = rng.choice(["click", "view", "cart", "purchase"])
    return click(user, kind=kind, viewed_s=12.0, **fields_)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("seed", range(12))
def test_an_event_of_the_future_changes_no_example(seed: int) -> None:
    rng, log = random.Random(seed), made_up_log(seed, events=250, users=6)
    event = rng.choice(log.events)
    before = examples_of(log.events)
    after = examples_of(in_order([*log.events, _intruder(rng, event.user_id, event)]))
    old = before.at(before.time_ms <= event.time_ms)
    new = after.at((after.time_ms <= event.time_ms) & _is_old(after, before))
    assert len(old) == len(new) > 0
    for field in (*INPUTS, *ANSWERS):
        np.testing.assert_array_equal(getattr(new, field), getattr(old, field), err_msg=field)


def _is_old(after: Examples, before: Examples) -> np.ndarray:
    def keys(examples: Examples) -> list[tuple[int, ...]]:
        return list(zip(examples.time_ms.tolist(), examples.row.tolist(), examples.item.tolist(), strict=True))

    known = set(keys(before))
    return np.array([key in known for key in keys(after)])


@pytest.mark.parametrize("seed", range(3))
def test_every_example_is_what_serving_gathers_from_all_that_came_before(seed: int) -> None:
    """Against the plain way: for each impression a new state, made of this user's earlier events in one batch."""
    log = made_up_log(seed, events=150, users=5)
    examples, ads = examples_of(log.events), catalogue()
    shown = [event for event in log.events if isinstance(event, Impression)]
    assert len(shown) == len(examples)
    for at, event in enumerate(shown):
        store = RowStore()
        store.row_of(event.user_id.encode())
        earlier = [each for each in log.events if each.user_id == event.user_id and each.time_ms < event.time_ms]
        apply(store, columns_of(store, earlier), ads)
        _same(examples, at, store, ads, event)


def _same(examples: Examples, at: int, store: RowStore, ads: Catalogue, event: Event) -> None:
    slot = ads.slots_of(np.array([id64(event.ad_id)], dtype=np.uint64))
    surface = columns_of(store, [event])["surface"]
    inputs, history = gather(ads, store.rows[:1].copy(), np.array([event.time_ms]), slot[:, None], surface)
    assert examples.item[at] == slot[0]
    np.testing.assert_array_equal(examples.history[at], history[0])
    np.testing.assert_array_equal(examples.age[at], inputs.history_age[0])
    np.testing.assert_array_equal(examples.kind[at], inputs.history_kind[0])
    np.testing.assert_allclose(examples.interest[at], inputs.interest[0], atol=1e-5)
    np.testing.assert_allclose(examples.stats[at], inputs.candidate_stats[0, 0], atol=1e-5)
    np.testing.assert_array_equal(examples.context[at], inputs.context[0])


def test_what_is_told_of_an_ads_clicks_is_what_had_come_in_by_then() -> None:
    log, ads = made_up_log(4, events=300, users=5, surface="feed"), catalogue()
    store, rates = RowStore(), RateTable()
    events = columns_of(store, log.events)
    examples, place, *_ = collect(events, store, ads, rates=rates)
    ordered = in_time_order(events, store)
    clicked = ordered["answers"] & (ordered["kind"] >= Kind.CLICKED)  # no impression has two answers here
    for at, example in zip(place.tolist(), examples.stats[:, RATED:], strict=True):
        known = RateTable()
        known.follow(ads)
        earlier = ordered[:at]
        known.add(ads.slots_of(earlier["ad"]), counts_of(earlier, np.ones(at, dtype=bool), clicked[:at]))
        np.testing.assert_array_equal(example, known.at(ads.slots_of(ordered["ad"][at : at + 1]))[0])
    assert examples.stats[-50:, RATED:REVIEWED].all()
    assert not examples.stats[:, REVIEWED:].any()
    clicks = [event for event in log.events if isinstance(event, Click) and event.kind in ("click", "cart", "purchase")]
    assert rates.total.tolist() == [len(examples), len(clicks)]


def test_counts_that_stand_still_are_those_of_the_moment_before() -> None:
    log, ads = made_up_log(8, events=200, users=5, surface="feed"), catalogue()
    store, rates = RowStore(), RateTable()
    events = columns_of(store, log.events)
    cut_ms = next(event.time_ms for event in log.events[120:] if isinstance(event, Impression))
    early, late = events[events["time_ms"] < cut_ms], events[events["time_ms"] >= cut_ms]
    collect(early, store, ads, rates=rates)
    shown = late[late["source"] == Source.IMPRESSION]
    total = rates.total.tolist()
    frozen = unanswered(shown, store, ads, rates)
    assert rates.total.tolist() == total
    np.testing.assert_array_equal(frozen.stats[:, RATED:], rates.at(ads.slots_of(shown["ad"])))
    stateful = collect(late, store, ads, rates=rates).examples
    np.testing.assert_array_equal(stateful.stats[0, RATED:], frozen.stats[0, RATED:])
    assert (stateful.stats[-1, RATED:REVIEWED] != frozen.stats[-1, RATED:REVIEWED]).all()


def test_what_is_told_of_reviews_is_what_had_been_said_by_then_and_never_of_later() -> None:
    log, ads = made_up_log(4, events=300, users=5, surface="feed"), catalogue()
    store, other = RowStore(), RowStore()
    events, again = columns_of(store, log.events), columns_of(other, log.events)
    moments = [log.events[at].time_ms for at in (50, 100, 200)]
    said = [tone("ad", f"ad-{at % 4}", 5 + at, moments[at % 3], at / 9) for at in range(9)]
    cut_ms = moments[1]
    reviewed = collect(events, store, ads, said=history_of(said)).examples
    leaked = collect(again, other, ads, said=history_of([one for one in said if one.time_ms < cut_ms])).examples
    assert reviewed.stats[:, REVIEWED:].any()
    before = reviewed.time_ms <= cut_ms  # what is said at the very moment is not heard by then
    np.testing.assert_array_equal(reviewed.stats[before], leaked.stats[before])
    assert (reviewed.stats[~before] != leaked.stats[~before]).any()
    first = reviewed.time_ms <= moments[0]
    assert not reviewed.stats[first, REVIEWED:].any()


def test_the_state_in_the_end_is_the_one_of_serving() -> None:
    log, ads = made_up_log(4, events=300, users=5), catalogue()
    learnt, served = RowStore(), RowStore()
    collect(columns_of(learnt, log.events), learnt, ads)
    apply(served, columns_of(served, log.events), ads)
    for name in ("ring_ad", "ring_s", "ring_kind", "ring_place", "impressions", "clicks", "time_ms"):
        np.testing.assert_array_equal(learnt.rows[name], served.rows[name], err_msg=name)
    np.testing.assert_allclose(learnt.rows["interest"], served.rows["interest"], rtol=1e-4, atol=1e-5)


def test_the_events_given_are_left_as_they_are() -> None:
    store, log = RowStore(), made_up_log(5)
    events: Events = columns_of(store, log.events)
    kept = events.copy()
    collect(events, store, catalogue())
    np.testing.assert_array_equal(events, kept)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8, 1.0])
def test_a_split_by_time_parts_no_moment_and_loses_nothing(fraction: float) -> None:
    events = [impression(f"user-{n}", f"ad-{n % 20}", START_MS + 1_000 * (n // 7)) for n in range(100)]
    examples = examples_of(events)
    early, late = examples.time_split(fraction)
    assert len(early) + len(late) == 100
    assert abs(len(early) - 100 * fraction) <= 7
    if len(early) and len(late):
        assert early.time_ms.max() < late.time_ms.min()
    for name in ("history", "age", "interest", "context"):  # a week's are a GB, which is not to stand twice
        assert getattr(early, name).base is getattr(late, name).base is getattr(examples, name)


def test_no_events_are_no_examples() -> None:
    empty = examples_of([])
    assert len(empty) == 0
    assert [len(part) for part in empty.time_split(0.5)] == [0, 0]


def test_events_that_are_told_late_count_at_their_own_time() -> None:
    """Producers retry: what counts is when it happened, not where it stands in the log."""
    first, second = impression(), impression(ad_id="ad-2", time_ms=START_MS + 5_000)
    answer = click(time_ms=START_MS + 900, impression_time_ms=START_MS)
    straight, late = examples_of([first, answer, second]), examples_of([second, answer, first])
    for field in (*INPUTS, *ANSWERS):
        np.testing.assert_array_equal(getattr(late, field), getattr(straight, field), err_msg=field)


def test_the_examples_of_a_log_are_those_of_its_impressions() -> None:
    log: Log = made_up_log(6, events=120)
    ads = Catalogue()
    ads.upsert([entry_of(ad) for ad in log.ads])
    store = RowStore()
    examples = collect(columns_of(store, log.events), store, ads).examples
    shown = [event for event in log.events if isinstance(event, Impression)]
    assert examples.time_ms.tolist() == [event.time_ms for event in shown]
    assert [ads.entries[item].content.item_id for item in examples.item] == [event.ad_id for event in shown]
    assert 0 < examples.label.mean() < 1


def test_what_the_rules_keep_from_interest_is_no_example_and_answers_none() -> None:
    moments = [START_MS + 60 * at for at in range(900)]  # in the first minute more clicks than one person makes
    shown = [impression("script", f"ad-{at % 20}", time_ms) for at, time_ms in enumerate(moments)]
    answers = [click("script", one.ad_id, one.time_ms + 9, impression_time_ms=one.time_ms) for one in shown]
    again = [msgspec.structs.replace(one, event_id=f"again-{one.event_id}") for one in shown[::3]]
    store, events = RowStore(), in_order([*shown, *answers, *again])
    columns = columns_of(store, events)
    collected, served = collect(columns, store, catalogue()), RowStore()
    outcome = apply(served, in_time_order(columns_of(served, events), served), catalogue()).outcome
    assert {Outcome.BURST, Outcome.RESHOWN} <= set(outcome.tolist())
    np.testing.assert_array_equal(collected.counts, outcome == Outcome.APPLIED)
    assert len(collected.examples) == len(shown)
    clicks = (outcome == Outcome.APPLIED) & (in_time_order(columns, store)["source"] == Source.CLICK)
    assert collected.examples.label.sum() == clicks.sum() < len(answers)
