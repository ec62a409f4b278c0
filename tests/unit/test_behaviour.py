"""The behaviour report's numbers, each against a count of its own."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from scoring.confidence import student_95, wilson
from scoring.events import Source
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.seal import Seal
from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS
from streams.behaviour.attention import attention
from streams.behaviour.cohorts import cohorts
from streams.behaviour.drift import drift, turned_by
from streams.behaviour.fairness import fairness, gini, lorenz
from streams.behaviour.funnels import STEPS, funnels
from streams.behaviour.gathered import Gatherer, ReportError
from streams.behaviour.joined import PERIODS_MAX, Behaviour, Periods, by_rank, join
from streams.behaviour.personal import Personalisation, personalisation
from streams.logs import Event, Log
from streams.wire import Ad, Click, Impression, encode_json
from tests import builders
from tests.builders import START_MS, ad, click, impression, record

SEAL_OF_NOBODY = Seal.of("nobody has sealed with this")
MIDNIGHT_MS = START_MS - START_MS % DAY_MS


def behaviour_of(
    events: Sequence[Event],
    ads: Sequence[Ad] = (),
    decisions: Sequence[dict[str, object]] = (),
    seal: Seal = SEAL_OF_NOBODY,
) -> Behaviour:
    gatherer = Gatherer(seal=seal)
    gatherer.offer(ads)
    gatherer.add(events)
    gatherer.decided([encode_json(each) for each in decisions])
    return join(gatherer.gathered())


def happened() -> Log:
    return builders.made_up_log(11, users=40, ads=25, events=3_000)


def test_a_funnel_counts_impressions_by_the_most_that_came_of_them_as_a_plain_loop_does() -> None:
    log, level = happened(), {"view": 1, "click": 2, "cart": 3, "purchase": 4}
    best: dict[tuple[str, str, int], int] = {}
    for event in log.events:
        if isinstance(event, Impression):
            best.setdefault((event.user_id, event.ad_id, event.time_ms // 1_000), 0)
    for event in log.events:
        if isinstance(event, Click):
            key = (event.user_id, event.ad_id, (event.impression_time_ms or 0) // 1_000)
            best[key] = max(best[key], level[event.kind])
    furthest: dict[str, int] = defaultdict(int)
    for (user, _, _), most in best.items():
        furthest[user] = max(furthest[user], most)

    found = funnels(behaviour_of(log.events, log.ads))

    for steps, counted in ((found.impressions, best.values()), (found.people, furthest.values())):
        assert [step.step for step in steps] == list(STEPS)
        assert [step.count for step in steps] == [sum(most >= at for most in counted) for at in range(5)]
    assert found.unasked == 0
    shown = Counter(event.ad_id for event in log.events if isinstance(event, Impression))
    category = {each.ad_id: each.category.partition("/")[0] for each in log.ads}
    by_category: Counter[str] = Counter()
    for name, count in shown.items():
        by_category[category[name]] += count
    assert {name: steps[0].count for name, steps in found.categories.items()} == dict(by_category)


def alike(people: int = 40, each: int = 30) -> list[Event]:
    """Half of the people click all that they are shown, and half nothing."""
    events: list[Event] = []
    for user in range(people):
        for at in range(each):
            shown = START_MS + 2_000 * at
            events.append(impression(f"u-{user}", "a", shown))
            if user % 2:
                events.append(click(f"u-{user}", "a", shown + 500, impression_time_ms=shown))
    return events


def test_the_interval_of_a_funnel_of_impressions_is_as_wide_as_that_of_people_who_differ() -> None:
    found = funnels(behaviour_of(alike(), [ad("a", category="shoes")]))
    of_people = wilson(39 / 2, 39, student_95(39))  # one trial a person, less one
    for steps in (found.impressions, found.categories["shoes"]):
        told = next(step for step in steps if step.step == "clicked")
        assert (told.count, told.share) == (600, 0.5)
        assert (told.low, told.high) == pytest.approx(of_people)
    told = next(step for step in found.people if step.step == "clicked")
    assert (told.low, told.high) == pytest.approx(wilson(20, 40))


def test_an_action_that_names_no_impression_stands_in_no_funnel() -> None:
    of_itself = click(kind="purchase", value_micros=5)  # of the same ad, in the same millisecond
    elsewhere = click(ad_id="other", time_ms=START_MS + 9, impression_time_ms=START_MS)
    found = funnels(behaviour_of([impression(), of_itself, elsewhere]))
    assert [step.count for step in found.impressions] == [1, 0, 0, 0, 0]
    assert found.unasked == 2


def test_repeated_events_count_once_and_what_is_no_message_is_counted() -> None:
    gatherer, shown = Gatherer(), record(impression())
    values = [encode_json(impression(time_ms=START_MS + 1_000 * at)) for at in (1, 2, 1)]
    told = [replace(shown, value=value) for value in (*values, b"{", b"\xff", b'{"event_id": "x"}')]
    gatherer.take(Source.IMPRESSION, told)
    found = gatherer.gathered()
    assert (len(found.impressions), found.repeated, found.invalid) == (2, 1, 3)


def test_ids_that_are_counted_for_each_person_and_topic_anew_repeat_nothing() -> None:
    shown = [impression(user_id=f"u{at % 3}", event_id=f"{at // 3}", time_ms=START_MS + 2_000 * at) for at in range(9)]
    answers = [
        click(user_id=each.user_id, event_id=each.event_id, time_ms=each.time_ms + 1, impression_time_ms=each.time_ms)
        for each in shown
    ]
    found = behaviour_of([*shown, *answers], [ad()])
    assert (len(found.impressions), found.gathered.repeated) == (9, 0)
    assert [step.count for step in funnels(found).impressions] == [9, 9, 9, 0, 0]


def test_what_is_shown_twice_within_a_second_is_one_impression_as_it_is_to_billing() -> None:
    shown = [impression(time_ms=START_MS + at, event_id=f"i-{at}") for at in (0, 400, 999, 1_000)]
    answers = [
        click(time_ms=START_MS + 5_000 + at, event_id=f"c-{at}", impression_time_ms=START_MS + at) for at in (0, 999)
    ]
    found = behaviour_of([*shown, *answers], [ad()])
    assert found.impressions["time_ms"].tolist() == [START_MS, START_MS + 1_000]
    assert [step.count for step in funnels(found).impressions] == [2, 1, 1, 0, 0]
    assert found.gathered.repeated == 2


def test_what_is_older_than_since_is_left_out() -> None:
    gatherer = Gatherer(since_ms=START_MS)
    gatherer.add([impression(time_ms=START_MS - 1), impression(time_ms=START_MS)])
    assert gatherer.gathered().impressions["time_ms"].tolist() == [START_MS]


def test_more_events_than_fit_are_refused_with_what_to_do() -> None:
    gatherer = Gatherer(most=1)
    with pytest.raises(ReportError, match=r"more than 1 events; report on fewer with --since"):
        gatherer.add([impression(), impression(ad_id="ad-2")])


def test_no_events_are_no_report() -> None:
    with pytest.raises(ReportError, match="no events to report on"):
        behaviour_of([], [ad()])


@pytest.mark.parametrize("span_ms", [1, MINUTE_MS, 90 * MINUTE_MS, 20 * HOUR_MS, 6 * DAY_MS, 90 * DAY_MS, 900 * DAY_MS])
def test_periods_cover_the_span_and_are_few(span_ms: int) -> None:
    periods = Periods.over(START_MS, START_MS + span_ms)
    assert periods.start_ms <= START_MS
    assert periods.of(np.array([START_MS, START_MS + span_ms - 1])).tolist()[1] == periods.count - 1
    assert periods.of(np.array([START_MS])).tolist() == [0]
    assert periods.count <= PERIODS_MAX


@pytest.mark.parametrize("told", [1, 2, 9])
def test_groups_are_ranked_by_what_is_shown_of_them_and_told_apart_in_one_pass(told: int) -> None:
    group, shown = np.array([3, 0, 2, 2, 0, 2]), np.array([2, 0, 3, 1])
    order, members = by_rank(group, shown, told)
    assert order == [2, 0, 3]
    own = [[2, 3, 5], [1, 4], [0]]
    left = sorted(place for each in own[told:] for place in each)
    assert [each.tolist() for each in members] == [*own[:told], left]


def test_nothing_that_is_shown_is_no_group() -> None:
    order, members = by_rank(np.zeros(0, dtype=np.int64), np.zeros(2, dtype=np.int64), 5)
    assert (order, [each.tolist() for each in members]) == ([], [[]])


def test_cohorts_are_people_by_their_first_day_and_who_was_there_again() -> None:
    days = {"ann": [0, 1, 3], "bob": [0, 3], "eve": [1, 2], "joe": [3]}
    events = [
        impression(user, time_ms=MIDNIGHT_MS + day * DAY_MS + 60_000 * at)
        for user, each in days.items()
        for day in each
        for at in range(3)
    ]
    found = cohorts(behaviour_of(events))
    assert found.width_ms == 6 * HOUR_MS
    assert {each.from_ms: (each.people, each.active[::4]) for each in found.cohorts if each.people} == {
        MIDNIGHT_MS: (2, [2, 1, 0, 2]),
        MIDNIGHT_MS + DAY_MS: (1, [1, 1, 0]),
        MIDNIGHT_MS + 3 * DAY_MS: (1, [1]),
    }
    assert found.visits == sum(map(len, days.values()))
    assert found.hours_between_visits == pytest.approx(36, abs=0.1)  # of 24, 24, 48 and 72


def test_the_share_that_returns_is_of_those_whose_next_period_is_seen() -> None:
    events = [impression("ann", time_ms=MIDNIGHT_MS + at * DAY_MS) for at in (0, 1, 20)]
    events += [impression("bob", time_ms=MIDNIGHT_MS), impression("eve", time_ms=MIDNIGHT_MS + 20 * DAY_MS)]
    found = cohorts(behaviour_of(events))
    assert found.width_ms == 7 * DAY_MS
    assert found.returned == 0.0
    assert [(each.people, each.active) for each in found.cohorts if each.people] == [(2, [2, 0, 0, 1]), (1, [1])]


def test_seconds_looked_add_up_by_category_and_hour() -> None:
    log = happened()
    category = {each.ad_id: each.category.partition("/")[0] for each in log.ads}
    expected: dict[tuple[str, int], float] = defaultdict(float)
    for event in log.events:
        if isinstance(event, Click) and event.viewed_s:
            expected[category[event.ad_id], event.time_ms // HOUR_MS % 24] += event.viewed_s
    found = attention(behaviour_of(log.events, log.ads))
    for each in found.categories:
        for hour, seconds in enumerate(each.by_hour):
            assert seconds == pytest.approx(expected[each.category, hour])
    assert found.seconds == pytest.approx(sum(expected.values()))


def test_the_interest_of_who_stays_does_not_turn_and_of_who_leaves_it_does() -> None:
    ads = [ad("shoe", category="shoes"), ad("lamp", category="lamps")]
    events = []
    for day in range(4):
        for user, seen in (("stays", "shoe"), ("leaves", "shoe" if day < 2 else "lamp")):
            events.append(click(user, seen, MIDNIGHT_MS + day * DAY_MS, kind="purchase", impression_time_ms=None))

    def medians(user: str) -> list[float]:
        return [turn.median for turn in drift(behaviour_of([e for e in events if e.user_id == user], ads)).turns]

    assert medians("stays") == pytest.approx([0.0] * 3, abs=1e-6)
    still, turned, *_ = medians("leaves")
    assert still == pytest.approx(0, abs=1e-6)
    assert turned > 0.1
    both = drift(behaviour_of(events, ads))
    assert (both.people, both.followed) == (2, 2)


def _groups(people: int, crossed: int = 0) -> tuple[list[Event], list[Ad], list[dict[str, object]]]:
    """People half in control; the engine's like what they are shown twice as often, from fewer categories."""
    draw, ads = np.random.default_rng(4), [ad(f"ad-{at}", category=f"c{at}") for at in range(4)]
    events: list[Event] = []
    decisions: list[dict[str, object]] = []
    for number in range(people):
        for at in range(20):
            control = number % 2 == 0 or (number < crossed and at < 10)
            name, time_ms = f"p-{number}-{at}", START_MS + 1_000 * at
            seen = ads[int(draw.integers(4 if control else 2))].ad_id
            arm = CONTROL_ARM if control else ENGINE_ARM
            made = {"placement_id": name, "user_id": f"u-{number}", "arm": arm}
            decisions.append(made | {"policy": {"control_share": 0.5}})
            events.append(impression(f"u-{number}", seen, time_ms, placement_id=name))
            if draw.random() < (0.2 if control else 0.4):
                answer = {"impression_time_ms": time_ms, "placement_id": name, "viewed_s": 2.0}
                events.append(click(f"u-{number}", seen, time_ms + 5, **answer))
    events.append(impression("u-0", "ad-0", START_MS + 99_000, placement_id="of-nobody"))
    return events, ads, decisions


def test_what_personalisation_changed_is_the_groups_difference_with_an_interval() -> None:
    events, ads, decisions = _groups(600)
    found = personalisation(behaviour_of(events, ads, decisions))
    assert isinstance(found, Personalisation)
    control = {str(each["placement_id"]) for each in decisions if each["arm"] == CONTROL_ARM}
    shown, clicked = Counter[bool](), Counter[bool]()
    for event in events:
        if event.placement_id != "of-nobody":
            (shown if isinstance(event, Impression) else clicked)[event.placement_id in control] += 1
    changes = {each.metric: each for each in found.changes}
    ctr = changes["ctr"]
    assert ctr.control == pytest.approx(clicked[True] / shown[True])
    assert ctr.personalised == pytest.approx(clicked[False] / shown[False])
    assert ctr.low is not None
    assert ctr.high is not None
    assert 0.1 < ctr.low < 0.2 < ctr.high < 0.3
    assert found.impressions == {"control": shown[True], "personalised": shown[False]}
    assert changes["viewed_s"].personalised == pytest.approx(2 * ctr.personalised)
    diversity, entropy = changes["diversity"], changes["category_entropy_bits"]
    assert diversity.high is not None
    assert diversity.high < 0  # half the categories: fewer changes
    assert entropy.control == pytest.approx(2, abs=0.1)
    assert entropy.personalised == pytest.approx(1, abs=0.1)
    assert found.split_p_value > 0.1


def test_people_seen_in_both_groups_count_in_neither_and_few_people_tell_no_difference() -> None:
    found = personalisation(behaviour_of(*_groups(40, crossed=10)))
    assert found is not None
    assert found.crossed == 5
    assert found.people == {"control": 20, "personalised": 15}
    assert {each.low for each in found.changes if each.metric in ("ctr", "category_entropy_bits")} == {None}


@pytest.mark.parametrize("shares", [(0.05, 0.0), (0.05, 0.1), (0.2, 0.05), (1.0, 0.05)])
def test_a_change_of_the_control_groups_share_raises_no_alarm_of_its_own(shares: tuple[float, float]) -> None:
    people, events, decisions = 8_000, [], []
    places = np.random.default_rng(2).random(people)  # who is below the share is in control
    for number in range(people):  # half came before the change, and all of these come again after it
        for at in (0, 1) if number < people // 2 else (1,):
            share, name = shares[at], f"p-{number}-{at}"
            arm = CONTROL_ARM if places[number] < share else ENGINE_ARM
            made = {"placement_id": name, "user_id": f"u-{number}", "arm": arm}
            decisions.append(made | {"policy": {"control_share": share}})
            events.append(impression(f"u-{number}", "a", START_MS + 3_600_000 * at, placement_id=name))
    found = personalisation(behaviour_of(events, [ad("a")], decisions))
    assert found is not None
    assert found.split_p_value > 0.05
    assert found.crossed == 0
    compared = sum(people // 2 for share in shares if 0 < share < 1)
    assert sum(found.people.values()) == sum(found.impressions.values()) == compared


def test_groups_of_whose_ads_none_is_known_are_told_apart_but_for_the_entropy() -> None:
    events, _, decisions = _groups(40)
    found = personalisation(behaviour_of(events, [ad("another")], decisions))
    assert found is not None
    assert "category_entropy_bits" not in {each.metric for each in found.changes}
    assert found.impressions == {"control": 400, "personalised": 400}


def test_a_log_without_receipts_of_both_groups_tells_nothing_of_personalisation() -> None:
    events, ads, decisions = _groups(10)
    assert personalisation(behaviour_of(events, ads)) is None
    assert personalisation(behaviour_of(events, ads, [each | {"arm": ENGINE_ARM} for each in decisions])) is None


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1, 1], 0), ([0, 0, 1], 2 / 3), ([1, 3], 0.25), ([5], 0), ([0, 0], None), ([], None)]
)
def test_gini_is_that_of_the_textbook(values: list[float], expected: float | None) -> None:
    found = gini(np.array(values, dtype=float))
    assert found == (None if expected is None else pytest.approx(expected))


def test_lorenz_lies_below_the_diagonal_and_ends_at_all() -> None:
    curve = lorenz(np.array([0.0, 1.0, 9.0]))
    assert (curve[0], curve[-1]) == (0, 1)
    assert (curve <= np.linspace(0, 1, len(curve)) + 1e-12).all()
    assert (np.diff(curve) >= 0).all()
    assert not len(lorenz(np.zeros(3)))


def test_exposure_stands_beside_clicks_and_value_and_who_was_never_shown_is_a_party() -> None:
    ads = [ad("a", advertiser_id="one"), ad("b", advertiser_id="two"), ad("c", advertiser_id="idle")]
    events: list[Event] = [impression("u", "a", START_MS + 1_000 * at) for at in range(3)]
    events += [impression("u", "b", START_MS + 9_000)]
    events += [click("u", "b", START_MS + 9_001, kind="purchase", value_micros=8, impression_time_ms=START_MS + 9_000)]
    found = fairness(behaviour_of(events, ads)).advertisers
    assert found.parties == 3
    assert found.gini_exposure == pytest.approx(gini(np.array([3.0, 1.0, 0.0])))
    assert found.misplaced == pytest.approx(0.75)
    shares = {each.name: (each.exposure, each.clicks, each.value, each.ratio) for each in found.largest}
    assert shares == {"one": (0.75, 0, 0, None), "two": (0.25, 1, 1, 0.25), "idle": (0, 0, 0, None)}


@pytest.mark.parametrize(
    ("fields", "there"),
    [
        ({}, True),
        ({"end_ms": START_MS + 1}, True),
        ({"start_ms": START_MS + 9}, True),
        ({"end_ms": START_MS}, False),
        ({"start_ms": START_MS + 10}, False),
        ({"status": "ended"}, False),
        ({"status": "paused"}, False),
    ],
)
def test_who_had_nothing_on_offer_while_events_happened_is_no_party(fields: dict[str, object], there: bool) -> None:
    events = [impression("u", "a", START_MS), impression("v", "a", START_MS + 9)]
    ads = [ad("a", category="a"), ad("b", advertiser_id="another", category="b", **fields)]
    found = fairness(behaviour_of(events, ads))
    assert found.advertisers.parties == found.categories.parties == 1 + there


def test_entropy_is_corrected_for_few_impressions() -> None:
    from streams.behaviour.personal import category_entropy

    ads = [ad("x", category="x"), ad("y", category="y")]
    events = [impression("u", "xy"[at % 2], START_MS + at * 1_000) for at in range(20)]
    bits, enough = category_entropy(behaviour_of(events, ads), np.arange(20))
    assert bits[0] == pytest.approx(1 + 1 / (2 * 20) / math.log(2))
    assert enough[0]


def test_an_interest_turns_by_nothing_at_least_and_two_at_most_and_by_one_where_none_is_left() -> None:
    before = np.array([[[3.0, 4.0]]] * 4, dtype=np.float32)
    after = np.array([[[6.0, 8.0]], [[-4.0, 3.0]], [[-3.0, -4.0]], [[0.0, 0.0]]], dtype=np.float32)
    assert turned_by(before, after)[:, 0] == pytest.approx([0, 1, 2, 1])


def test_who_attended_to_nothing_that_the_catalogue_knows_has_no_interest_that_may_turn() -> None:
    events = [click("a", "known", time_ms=START_MS), click("b", "unknown", time_ms=START_MS)]
    assert drift(behaviour_of(events, [ad("known", category="shoes")])).people == 1
