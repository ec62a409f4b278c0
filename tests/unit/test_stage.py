import io

from msgspec import structs
from rich.console import Console

from streams.demo.agenda import Agenda
from streams.demo.meter import Meter
from streams.demo.report import Report, Snapshot
from streams.demo.shop import Event, Pace, Shoppers
from streams.demo.stage import PAGE_MS, Stage
from streams.demo.view import render
from streams.wire import Attended, Click, Impression, Placement, Slot, Tone

NOW_MS = 1_760_000_000_000


def placement(user: str, arm: str = "engine") -> Placement:
    slots = tuple(
        Slot(
            slot=slot,
            ad_id=f"ad-{slot:04d}",
            campaign_id="c",
            pctr=0.1,
            ecpm_micros=1,
            price_micros=1,
            propensity=1.0,
            attention=(Attended(ad_id="ad-0300", weight=0.6), Attended(ad_id="[gone]", weight=0.4)),
        )
        for slot in range(10)
    )
    return Placement(
        placement_id=f"p-{user}",
        user_id=user,
        time_ms=NOW_MS,
        valid_until_ms=NOW_MS + 1,
        arm=arm,
        model="m",
        slots=slots,
    )


def played(seconds: int, arm: str | None) -> tuple[Stage, Meter, list[Event], list[int]]:
    """A stage after so many seconds, with one arm's placements or none; what it sent, and when."""
    meter, sent, times = Meter(), list[Event](), list[int]()
    shoppers = Shoppers(1, 200, pace=Pace(act_s=1.0))
    now_ms = NOW_MS

    def send(event: Event) -> None:
        sent.append(event)
        times.append(now_ms)

    stage = Stage(shoppers, meter, lambda user: placement(user, arm) if arm else None, send)
    for now_ms in range(NOW_MS, NOW_MS + 1_000 * seconds, 10):
        stage.tick(now_ms)
    return stage, meter, sent, times


def test_things_come_when_due_in_order_and_once() -> None:
    agenda: Agenda[str] = Agenda()
    for time_ms, thing in ((5, "b"), (1, "a"), (5, "c"), (9, "d")):
        agenda.add(time_ms, thing)
    assert list(agenda.due(0)) == []
    assert list(agenda.due(5)) == ["a", "b", "c"]
    assert list(agenda.due(5)) == []
    assert len(agenda) == 1


def test_events_are_sent_when_their_time_has_come() -> None:
    _, _, sent, times = played(20, "engine")
    assert len(sent) > 500
    assert all(0 <= at - event.time_ms <= 10 for event, at in zip(sent, times, strict=True))


def test_shoppers_look_at_what_the_ad_server_has_a_page_after_they_acted() -> None:
    _, meter, sent, _ = played(20, "engine")
    acts = {(e.user_id, e.time_ms) for e in sent if isinstance(e, Click) and e.placement_id is None}
    shown = [event for event in sent if isinstance(event, Impression)]
    assert shown
    assert all((event.user_id, event.time_ms - PAGE_MS) in acts for event in shown)
    assert all(event.placement_id == f"p-{event.user_id}" for event in shown)
    assert meter.engine.impressions == len(shown)
    assert meter.control.impressions == 0
    answered = sum(isinstance(e, Click) and e.kind == "click" and e.placement_id is not None for e in sent)
    assert 0 < answered <= meter.engine.clicks  # the last clicks are still to come


def test_the_control_arm_is_counted_apart_and_makes_no_sample() -> None:
    stage, meter, _, _ = played(10, "control")
    assert meter.control.impressions > 0
    assert meter.engine.impressions == 0
    assert stage.sample is None


def test_without_placements_shoppers_browse_and_see_nothing() -> None:
    _, meter, sent, _ = played(10, None)
    assert sent
    assert not any(isinstance(event, Impression) for event in sent)
    assert meter.engine.impressions == 0


def test_a_placement_without_ads_is_nothing_to_look_at() -> None:
    meter, sent = Meter(), list[Event]()
    stage = Stage(Shoppers(1, 50), meter, lambda user: structs.replace(placement(user), slots=()), sent.append)
    for now_ms in range(NOW_MS, NOW_MS + 10_000, 10):
        stage.tick(now_ms)
    assert sent
    assert (meter.engine.impressions, stage.sample) == (0, None)


def frame(
    stage: Stage,
    meter: Meter,
    guarantee: str | None = "at_least_once",
    unheard_s: float = 0.0,
    broker: str = "127.0.0.1:9092",
) -> str:
    """What the view shows of it, 80 characters wide."""
    console = Console(width=80, file=io.StringIO(), record=True)
    report = Report.of(meter, 0.0, dead_letters=0, seconds=10, guarantee=guarantee, broker=broker)
    tone = Tone(of="ad", name="ad-0001", reviews=42, tone=0.873, turned_ms=None, time_ms=NOW_MS)
    sample = stage.sample.placement if stage.sample else None
    console.print(render(Snapshot("phase", report, 400.0, 150.0, sample, stage.ads, {tone.name: tone}, unheard_s)))
    return console.export_text()


def test_a_frame_names_the_broker_as_it_is() -> None:
    stage, meter, _, _ = played(1, None)
    for broker in ("[fe80::1]:9092", "[b]:9092", "[/b]:9092"):
        assert f"at_least_once on {broker} · Ctrl-C ends it" in frame(stage, meter, broker=broker)


def test_where_nothing_was_shown_click_rates_are_unknown() -> None:
    stage, meter, _, _ = played(10, None)
    text = frame(stage, meter)
    assert text.count("nothing shown") == 2
    assert "0.0%" not in text


def test_a_frame_names_the_ads_the_reason_and_both_click_rates() -> None:
    stage, meter, _, _ = played(10, "engine")
    text = frame(stage, meter)
    assert stage.ads["ad-0000"].title in text
    assert stage.ads["ad-0300"].title in text
    assert "[gone]" in text
    assert "87% of 42" in text
    assert text.count("none yet") == 2
    assert f"{meter.engine.ctr:.1%}" in text
    assert "95 % by user" in text
    assert "at_least_once on 127.0.0.1:9092" in text
    assert "your workers on 127.0.0.1:9092" in frame(stage, meter, None)
    assert "chance" in text
    assert "…" not in text


def test_a_frame_says_for_how_long_the_broker_has_been_asked_in_vain_once_that_is_long() -> None:
    stage, meter, _, _ = played(1, None)
    assert "the broker has not answered for 3 s" in frame(stage, meter, unheard_s=3.2)
    assert "not answered" not in frame(stage, meter, unheard_s=0.9)
