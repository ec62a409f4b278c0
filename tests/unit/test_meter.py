import numpy as np
import pytest

from scoring.confidence import Z_95, by_person, student_95, wilson
from streams.demo.catalogue import LOG_START_MS
from streams.demo.meter import Arm, Meter, Rate
from streams.demo.report import Report
from streams.demo.shop import Shoppers
from streams.wire import Impression


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # R: prop.test(x, n, correct = FALSE)
        (0, 10, 0.0, 0.2775328),
        (1, 10, 0.0178762, 0.4041500),
        (10, 100, 0.0552291, 0.1743657),
        (50, 100, 0.4038315, 0.5961685),
        (10, 10, 0.7224672, 1.0),
    ],
)
def test_wilsons_interval_is_that_of_the_tables(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # R: qt(.975, df)
    [
        (1, 12.7062047),
        (2, 4.3026527),
        (3, 3.1824463),
        (4, 2.7764451),
        (9, 2.2621572),
        (30, 2.0422725),
        (999, 1.9623415),
    ],
)
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_95(freedom) == pytest.approx(quantile, rel=1.25e-3 if freedom == 3 else 4e-4)
    assert student_95(freedom) > student_95(freedom + 1) > Z_95


def test_an_interval_by_person_is_wilsons_of_the_trials_that_would_tell_as_much() -> None:
    clicks, impressions = np.array([0, 6, 2, 0, 4]), np.array([5, 10, 20, 5, 10])
    # .24 of 50; residuals -1.2, 3.6, -2.8, -1.2, 1.6: variance 5/4 × 26.24 / 50², that of 13.9 trials; t of 4
    assert by_person(clicks, impressions) == pytest.approx((0.0613326, 0.6041507), abs=2e-4)


def test_of_one_person_nothing_is_known_of_others_and_where_nobody_clicked_few_people_may_all_be_alike() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert by_person(none, none) == by_person(np.array([1]), np.array([10])) == (0.0, 1.0)
    assert by_person(np.zeros(50, dtype=np.int64), np.full(50, 3)) == pytest.approx(wilson(0, 150, 2.0095752))
    assert by_person(np.full(3, 2), np.full(3, 10)) == pytest.approx(wilson(6, 30, 4.3026527))


@pytest.mark.parametrize("people", [2, 3, 5, 10, 20])
@pytest.mark.parametrize(
    ("taste", "least"),
    [((2.0, 18.0), 0.92), ((0.5, 4.5), 0.92), ((0.2, 1.8), 0.85)],
    ids=["people differ little", "people differ much", "half never click"],
)
def test_of_few_people_intervals_hold_the_true_rate_as_often_as_they_are_said_to(
    people: int, taste: tuple[float, float], least: float
) -> None:
    draw, impressions = np.random.default_rng(people), np.full(people, 50)
    clicks = draw.binomial(50, draw.beta(*taste, size=(1_000, people)))
    told = np.array([by_person(each, impressions) for each in clicks])
    plain = np.array([wilson(each, 50 * people) for each in clicks.sum(axis=1).tolist()])
    assert ((told[:, 0] <= plain[:, 0]) & (plain[:, 1] <= told[:, 1])).all()
    assert ((told[:, 0] <= 0.1) & (told[:, 1] >= 0.1)).mean() >= least - 0.02  # of a thousand draws


def crowd(seed: int, users: int = 40, looks: int = 6) -> Meter:
    """What a crowd of its own does about the ads that each of it likes, as an engine would place them."""
    meter, shoppers, everyone = Meter(), Shoppers(seed, users), np.arange(users)
    draw = np.random.default_rng([seed, 9])
    for look in range(looks):
        liking = shoppers.tastes.log_odds(everyone)
        slots = np.argsort(-liking - draw.gumbel(size=liking.shape), axis=1)[:, :10]
        now_ms = np.full(users, LOG_START_MS + 6_000 * look)
        for event in shoppers.see_many(everyone, slots, [""] * users, now_ms):
            clicked = not isinstance(event, Impression) and event.kind == "click"
            meter.seen(event.user_id, "engine", int(isinstance(event, Impression)), int(clicked))
    return meter


def test_of_many_crowds_intervals_at_least_nine_in_ten_hold_the_true_click_rate() -> None:
    arms = [crowd(seed).engine for seed in range(60)]
    truth = sum(arm.clicks for arm in arms) / sum(arm.impressions for arm in arms)

    def covered(intervals: list[tuple[float, float] | None]) -> float:
        held = [found is not None and found[0] <= truth <= found[1] for found in intervals]
        return sum(held) / len(held)

    assert covered([arm.interval for arm in arms]) >= 0.9
    assert covered([wilson(arm.clicks, arm.impressions) for arm in arms]) < 0.8


def test_an_arm_without_impressions_knows_nothing() -> None:
    assert (Arm().ctr, Arm().interval) == (None, None)


def test_latency_is_from_the_first_sending_of_an_events_time_to_the_first_placement_it_caused() -> None:
    meter = Meter()
    assert meter.latency_ms([50]) == [None]
    meter.sent("u", 1_000, 10.0)
    meter.sent("u", 1_000, 10.5)
    meter.arrived("u", 1_000, 10.020)
    meter.arrived("u", 1_000, 99.0)
    meter.arrived("stranger", 1_000, 99.0)
    assert meter.latency_ms([50, 99]) == [20.0, 20.0]
    assert (meter.events.total, meter.placements.total) == (2, 3)


def test_who_waits_long_for_an_answer_of_the_newest_event_is_unanswered() -> None:
    meter = Meter()
    for user in ("anna", "bert", "carl", "dora"):
        meter.sent(user, 1_000, 0.0)
    meter.arrived("anna", 1_000, 0.1)
    meter.arrived("bert", 1_001, 0.1)
    meter.sent("carl", 6_000, 5.0)  # whoever acts again and again waits since the first time
    meter.sent("dora", 2_000, 1.0)
    meter.arrived("dora", 1_000, 1.1)  # of the event before
    assert [meter.unanswered(now_s) for now_s in (5.0, 5.5, 6.5)] == [0, 1, 2]
    meter.arrived("dora", 2_000, 7.0)
    assert meter.unanswered(99.0) == 1
    assert Report.of(meter, 99.0, dead_letters=0, seconds=99, guarantee="g", broker="b").unanswered == 1


def test_silence_is_from_the_first_event_after_the_last_placement() -> None:
    meter = Meter()
    assert meter.silent_s(9.0) == 0
    meter.sent("anna", 1_000, 10.0)
    meter.sent("bert", 2_000, 11.0)
    assert meter.silent_s(12.0) == 2
    meter.arrived("bert", 2_000, 12.0)
    assert meter.silent_s(20.0) == 0
    meter.sent("anna", 3_000, 20.0)
    assert meter.silent_s(21.0) == 1


def test_events_without_an_answer_are_forgotten_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.demo.meter.SENT_MAX", 2)
    meter = Meter()
    for time_ms in (1, 2, 3):
        meter.sent("u", time_ms, 0.0)
    for time_ms in (1, 2, 3):
        meter.arrived("u", time_ms, float(time_ms))
    assert meter.latency_ms([0, 100]) == [2_000.0, 3_000.0]


def test_a_rate_follows_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_s(0.0) == 0.0
    for second in range(1, 11):
        rate.total += 100
        assert rate.per_s(float(second)) == pytest.approx(100)
    for second in range(11, 20):
        rate.total += 10
        last = rate.per_s(float(second))
    assert last == pytest.approx(10)


def test_a_report_tells_the_arms_apart() -> None:
    meter = Meter()
    meter.seen("anna", "engine", 100, 10)
    meter.seen("bert", "control", 50, 1)
    meter.seen("anna", "engine", 100, 11)
    report = Report.of(meter, 9.0, dead_letters=3, seconds=1.234, guarantee="at_least_once", broker="embedded")
    assert (report.impressions_engine, report.ctr_engine) == (200, 0.105)
    assert (report.impressions_random, report.ctr_random) == (50, 0.02)
    assert report.ctr_random_interval is not None
    assert report.ctr_random_interval[0] < 0.02 < report.ctr_random_interval[1]
    assert (report.dead_letters, report.seconds, report.p50_ms) == (3, 1.2, None)
