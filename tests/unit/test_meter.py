import pytest

from scoring.confidence import wilson
from streams.demo.meter import Arm, Meter, Rate
from streams.demo.report import Report


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


def test_an_arm_without_impressions_knows_nothing() -> None:
    assert (Arm().ctr, Arm().interval) == (0.0, (0.0, 1.0))


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
    meter.seen("engine", 100, 10)
    meter.seen("control", 50, 1)
    meter.seen("engine", 100, 11)
    report = Report.of(meter, dead_letters=3, seconds=1.234, guarantee="at_least_once", broker="embedded")
    assert (report.impressions_engine, report.ctr_engine) == (200, 0.105)
    assert (report.impressions_random, report.ctr_random) == (50, 0.02)
    assert report.ctr_random_interval[0] < 0.02 < report.ctr_random_interval[1]
    assert (report.dead_letters, report.seconds, report.p50_ms) == (3, 1.2, None)
