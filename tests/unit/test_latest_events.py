"""Doctor tells what events lack that are taken without an error."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from scoring.events import Source
from scoring.units import HOUR_MS
from streams import latest_events
from streams.checkup import Check, events
from streams.identity import partitioner
from streams.latest_events import Sample, decoded, summed
from streams.settings import Settings
from streams.wire import Click, Impression
from tests.builders import START_MS, Record, click, impression, records

LANES = 4
LATE_MS = 7 * 24 * HOUR_MS
HEALTHY = Sample(
    records=1_000,
    refused=0,
    why="",
    ahead=0,
    misplaced=0,
    late=0,
    late_ms=0,
    looks=0,
    overlong=0,
    impressions=800,
    clicks=200,
    answers=150,
    pairs=140,
    placed=139,
    apart=1,
    strays=0,
    stray="",
)


def seen(happened: Sequence[Impression | Click], lane: int, spoilt: Sequence[bytes] = ()) -> Sample:
    """What is seen of ``happened`` where all of it is in ``lane``, wherever its users belong."""
    shown = records([event for event in happened if isinstance(event, Impression)], lane)
    done = records([event for event in happened if isinstance(event, Click)], lane)
    done += [replace(done[0], value=value) for value in spoilt]
    parts = [(shown, Source.IMPRESSION), (done, Source.CLICK)]
    return summed(decoded(part, source, LANES, START_MS + 60_000, LATE_MS) for part, source in parts)


def test_a_sample_counts_what_is_there_and_what_it_lacks() -> None:
    lane, told = partitioner(LANES)(b"ann"), {"impression_time_ms": START_MS}
    bob, stray = (
        next(name for name in map(str, range(99)) if (partitioner(LANES)(name.encode()) == lane) is here)
        for here in (True, False)
    )
    happened = [
        impression("ann", surface="home"),
        impression("ann", "ad-2", surface="home"),
        impression("ann", "ad-5"),
        impression(bob, consent=False),
        click("ann", **told, surface="home"),
        click("ann", "ad-2", **told),
        click("ann", "ad-3", surface="home"),
        click("ann", "ad-4", **told, kind="cart"),
        click("ann", "ad-5", **told),
        click("ann", "ad-6", **told),
        click(bob, **told, surface="home"),
        click(bob, "ad-2", **told, surface="home"),
        click(stray),
    ]
    assert seen(happened, lane, [b"{", b"[]"]) == Sample(
        records=15,
        refused=2,
        why="DecodeError: the value ends unfinished at byte 1; "
        "expected a whole JSON object; correct it where it is sent",
        ahead=0,
        misplaced=1,
        late=0,
        late_ms=0,
        looks=0,
        overlong=0,
        impressions=4,
        clicks=7,
        answers=6,
        pairs=4,
        placed=1,
        apart=2,
        strays=2,  # of ads whose impressions nobody sent
        stray=f"impression_time_ms {START_MS}, where the nearest of its user has time_ms {START_MS}, of another ad",
    )


def test_what_a_no_took_back_within_the_sample_was_there_all_the_same() -> None:
    happened = [impression("ann"), click("ann"), click("ann", "ad-2"), click("ann", "ad-3", consent=False)]
    sample = seen(happened, partitioner(LANES)(b"ann"))
    assert (sample.records, sample.impressions, sample.clicks) == (4, 1, 1)


def found(sample: Sample) -> dict[str, Check]:
    return {check.name: check for check in events(sample)}


def test_nothing_is_wrong_with_events_that_lack_nothing_and_with_none() -> None:
    checks = found(HEALTHY)
    assert [*checks] == ["events", "joins", "answers", "surfaces"]
    assert all(check.ok and not check.fix for check in checks.values())
    none = found(summed([]))
    assert [*none.values()] == [Check("events", ok=True, found="none yet")]


@pytest.mark.parametrize("few", [{"clicks": 99}, {"impressions": 99}])
def test_too_few_say_nothing_of_fields(few: dict[str, int]) -> None:
    assert [*found(replace(HEALTHY, answers=0, pairs=0, **few))] == ["events"]  # type: ignore[arg-type] # counts


def test_too_few_pairs_of_a_click_and_its_impression_are_told_as_too_few() -> None:
    few = found(replace(HEALTHY, pairs=19, placed=0, apart=19))["surfaces"]
    told = "19 pairs of a click and the impression that it answers, too few to tell"
    assert few == Check("surfaces", ok=True, found=told)
    assert not found(replace(HEALTHY, pairs=20, placed=0, apart=20))["surfaces"].ok


@pytest.mark.parametrize(
    ("wrong", "check", "fix"),
    [
        ({"refused": 11, "why": "ValidationError: no ad_id"}, "events", "ValidationError: no ad_id"),
        (
            {"refused": 990, "ahead": 501, "why": "time_ms 9"},
            "events",
            "`date -u` here and elsewhere: the records' own times are ahead, too, of 501",
        ),
        ({"refused": 990, "ahead": 500, "why": "time_ms 9"}, "events", "dead-letters list; the first: time_ms 9"),
        ({"misplaced": 11}, "events", "murmur2"),
        ({"late": 11, "late_ms": START_MS // 1000}, "events", "in milliseconds"),
        ({"late": 11, "late_ms": START_MS}, "events", "salience tail late-events"),
        ({"looks": 150, "overlong": 16}, "looks", "by its end"),
        ({"answers": 0, "pairs": 0}, "answers", "impression_time_ms"),
        ({"placed": 125, "apart": 15}, "surfaces", "surface"),
    ],
    ids=[
        "malformed",
        "most sent ahead of this clock",
        "half sent ahead of this clock",
        "misplaced",
        "in seconds",
        "of long ago",
        "looks dated by their begin",
        "no click answers",
        "one without surface",
    ],
)
def test_what_is_wrong_is_told_with_what_helps(wrong: dict[str, object], check: str, fix: str) -> None:
    checks = found(replace(HEALTHY, **wrong))  # type: ignore[arg-type] # counts, and a text
    assert [name for name, each in checks.items() if not each.ok] == [check]
    assert fix in checks[check].fix


@pytest.mark.parametrize(
    "some",
    [
        {"refused": 10, "misplaced": 10, "late": 10},
        {"looks": 150, "overlong": 15},
        {"placed": 126, "apart": 14},
    ],
    ids=["one event of a hundred", "one look of ten", "one pair of ten"],
)
def test_a_few_that_are_wrong_are_no_fault_of_a_sender(some: dict[str, int]) -> None:
    checks = found(replace(HEALTHY, **some))  # type: ignore[arg-type] # counts
    assert {"events", "joins", "answers", "surfaces", *(["looks"] if "looks" in some else [])} == checks.keys()
    assert all(check.ok and not check.fix for check in checks.values())


def test_events_that_are_dated_long_before_they_were_sent_are_counted_with_what_the_first_says() -> None:
    ann, kept = partitioner(LANES)(b"ann"), impression("ann", time_ms=START_MS - LATE_MS)
    old = [impression("ann", time_ms=START_MS // 1000), click("ann", time_ms=START_MS - LATE_MS - 1)]
    told = [([kept, old[0]], Source.IMPRESSION), ([old[1]], Source.CLICK)]
    parts = [([replace(each, timestamp=START_MS) for each in records(of, ann)], source) for of, source in told]
    sample = summed(decoded(part, source, LANES, START_MS + 60_000, LATE_MS) for part, source in parts)
    assert (sample.records, sample.late, sample.late_ms) == (3, 2, START_MS // 1000)


def test_records_that_are_ahead_of_who_reads_are_counted_apart_from_events_that_their_devices_date_ahead() -> None:
    ann, latest_ms = partitioner(LANES)(b"ann"), START_MS + 60_000
    sent = records(
        [click("ann", time_ms=latest_ms + 1), click("ann", "ad-2", latest_ms + 1), click("ann", "ad-3")], ann
    )
    sent[0] = replace(sent[0], timestamp=latest_ms + 1)
    sent[1] = replace(sent[1], timestamp=START_MS)
    sample = summed([decoded(sent, Source.CLICK, LANES, latest_ms, LATE_MS)])
    assert (sample.records, sample.refused, sample.ahead) == (3, 2, 1)


def test_impressions_that_serve_to_find_what_clicks_answer_are_not_counted_whatever_is_wrong_with_them() -> None:
    ann, latest_ms = partitioner(LANES)(b"ann"), START_MS + 60_000
    shown = [impression("ann", time_ms=START_MS // 1000), impression("ann", "ad-2", latest_ms + 1), impression("bob")]
    sent = [replace(each, timestamp=each.timestamp * 2) for each in records(shown, ann)]
    assert summed([decoded(sent, Source.IMPRESSION, LANES, latest_ms, LATE_MS, early=True)]) == summed([])


@pytest.mark.parametrize(("after_ms", "overlong"), [(30_000, 0), (29_000, 0), (28_999, 1), (0, 1), (-5, 1)])
def test_looks_that_are_longer_than_they_can_be_are_counted_but_for_rounding(after_ms: int, overlong: int) -> None:
    told = {"impression_time_ms": START_MS, "kind": "view"}
    looks = [click("ann", time_ms=START_MS + after_ms, viewed_s=30.0, event_id="1", **told)]
    others = [
        click("ann", time_ms=START_MS + 5, viewed_s=30.0, kind="view"),
        click("ann", time_ms=START_MS + 5, **told),
    ]
    sample = seen([impression("ann"), *looks, *others], partitioner(LANES)(b"ann"))
    assert (sample.looks, sample.overlong) == (1, overlong)


def test_a_shop_that_tells_no_surfaces_is_told_what_it_misses() -> None:
    check = found(replace(HEALTHY, placed=0, apart=0))["surfaces"]
    assert check.ok
    assert "count those alone" in check.fix


def topics_of(shown: Sequence[Impression], clicks: Sequence[Click], lanes: int) -> Sample:
    """The sample of topics that hold these, all in the first of so many partitions."""
    held = {"ad-impressions": records(shown), "clicks": records(clicks)}

    async def read(_bootstrap: str, topic: str, *, latest: int) -> AsyncIterator[Sequence[Record]]:
        for begin in range(max(0, len(held[topic]) - latest), len(held[topic]), 1_000):
            yield held[topic][begin : begin + 1_000]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latest_events, "read_topic", read)
        patch.setattr(latest_events, "partition_counts", lambda _bootstrap, topics: dict.fromkeys(topics, lanes))
        return latest_events.sample(Settings())


@pytest.mark.parametrize("said", ["", "home"])
def test_of_fifty_impressions_to_a_click_enough_are_read_to_tell_of_their_surfaces(said: str) -> None:
    shown = [impression("ann", f"ad-{n}", START_MS + n, surface="home") for n in range(5_000)]
    told = [{"ad_id": one.ad_id, "impression_time_ms": one.time_ms, "surface": said} for one in shown[::50]]
    sample = topics_of(shown, [click("ann", time_ms=START_MS + n, **each) for n, each in enumerate(told)], lanes=1)
    assert (sample.records, sample.impressions, sample.clicks, sample.pairs) == (600, 500, 100, 100)
    assert found(sample)["surfaces"].ok is (said == "home")


def test_clicks_in_the_wrong_partition_are_not_lost_among_the_impressions_read_beside_them() -> None:
    here, elsewhere = (
        next(name for name in map(str, range(99)) if (partitioner(2)(name.encode()) == 0) is right)
        for right in (True, False)
    )
    shown = [impression(here, f"ad-{n}") for n in range(5_000)]
    sample = topics_of(shown, [click(elsewhere if n % 5 else here, f"ad-{n}") for n in range(10)], lanes=2)
    assert (sample.records, sample.misplaced) == (510, 8)
    assert not found(sample)["events"].ok


def test_of_more_partitions_fewer_impressions_each_are_read() -> None:
    assert [latest_events.impressions_read(lanes) for lanes in (1, 4, 20, 1_000)] == [10_000, 10_000, 2_000, 500]


def test_places_that_tell_a_surface_may_have_another_click_rate_than_those_that_do_not() -> None:
    def shop(where: str, numbers: range, clicked: int, said: str) -> list[Impression | Click]:
        shown: list[Impression | Click] = [impression("ann", f"ad-{n}", surface=where) for n in numbers]
        told = {"impression_time_ms": START_MS, "surface": said}
        return shown + [click("ann", f"ad-{n}", **told) for n in numbers[:clicked]]

    lane, elsewhere = partitioner(LANES)(b"ann"), shop("", range(500), 50, "")
    sound = seen(elsewhere + shop("home", range(500, 1_000), 100, "home"), lane)
    assert (sound.pairs, sound.placed, sound.apart) == (150, 100, 0)
    assert found(sound)["surfaces"].ok
    skewed = seen(elsewhere + shop("home", range(500, 1_000), 100, ""), lane)
    assert not found(skewed)["surfaces"].ok


def answers(dated: Callable[[int], int], shoppers: int = 300, later_ms: int = 30_000) -> list[Impression | Click]:
    """Everyone is shown an ad, a second after the one before, and clicks, dating the impression as ``dated`` has it."""
    times_ms = [START_MS - 60_000_000 + 1_000 * n for n in range(shoppers)]
    shown: list[Impression | Click] = [impression("ann", f"ad-{n}", at) for n, at in enumerate(times_ms)]
    told = [(f"ad-{n}", at + later_ms, dated(at)) for n, at in enumerate(times_ms)]
    return shown + [click("ann", ad, at, impression_time_ms=said) for ad, at, said in told]


@pytest.mark.parametrize(
    "dated",
    [
        lambda at: at // 1_000,
        lambda at: at - 1_500,
        lambda at: at + 30_000,
        lambda _: 0,
        lambda at: at + 8 * HOUR_MS,
        lambda at: at - 3 * HOUR_MS,
        lambda at: at - 8 * HOUR_MS,
    ],
    ids=["seconds", "the placement's time", "the click's own time", "nothing", "Shanghai", "Rio", "Los Angeles"],
)
def test_answers_that_join_no_impression_though_theirs_were_read_are_told_with_the_field_and_what_it_should_be(
    dated: Callable[[int], int],
) -> None:
    sample = seen(answers(dated), partitioner(LANES)(b"ann"))
    assert sample.pairs == 0
    checks = found(sample)
    assert [name for name, check in checks.items() if not check.ok] == ["joins"]
    assert f"of {sample.strays} answers whose impressions were read 0 join one" in checks["joins"].found
    said = {dated(START_MS - 60_000_000 + 1_000 * n) for n in range(300)}
    assert int(sample.stray.removeprefix("impression_time_ms ").split(",")[0]) in said
    assert all(name in checks["joins"].fix for name in ("impression_time_ms", "time_ms", "user_id", "ad_id"))


@pytest.mark.parametrize("behind_h", [3, 8])
def test_an_app_whose_clicks_and_what_they_answer_are_both_dated_hours_back_is_told_by_when_their_records_were_sent(
    behind_h: int,
) -> None:
    happened, lane = answers(lambda at: at), partitioner(LANES)(b"ann")
    shown = records([event for event in happened if isinstance(event, Impression)], lane)
    done = [event for event in happened if isinstance(event, Click)]
    back = [
        click("ann", one.ad_id, one.time_ms - behind_h * HOUR_MS, impression_time_ms=said - behind_h * HOUR_MS)
        for one in done
        if (said := one.impression_time_ms)
    ]
    late = [replace(each, timestamp=one.time_ms) for each, one in zip(records(back, lane), done, strict=True)]
    parts = [(shown, Source.IMPRESSION), (late, Source.CLICK)]
    sample = summed(decoded(part, source, LANES, START_MS + 60_000, LATE_MS) for part, source in parts)
    assert (sample.answers, sample.pairs, sample.strays) == (300, 0, 300)
    assert not found(sample)["joins"].ok


@pytest.mark.parametrize("wrong", [lambda at: at // 1_000, lambda at: at - 8 * HOUR_MS], ids=["seconds", "Los Angeles"])
@pytest.mark.parametrize(("tenths", "ok"), [(2, False), (5, False), (6, True), (8, True)])
def test_an_app_of_two_that_dates_impressions_wrongly_is_told_and_a_few_wrong_answers_are_not(
    wrong: Callable[[int], int], tenths: int, ok: bool
) -> None:
    mixed = seen(answers(lambda at: at if at // 1_000 % 10 < tenths else wrong(at)), partitioner(LANES)(b"ann"))
    assert (mixed.pairs, mixed.strays) == (30 * tenths, 30 * (10 - tenths))
    assert found(mixed)["joins"].ok is ok


def test_too_few_answers_that_join_none_say_nothing() -> None:
    lane = partitioner(LANES)(b"ann")
    assert "joins" not in found(seen(answers(lambda at: at // 1_000, shoppers=19), lane))
    assert not found(seen(answers(lambda at: at // 1_000, shoppers=20), lane))["joins"].ok


@pytest.mark.parametrize("later_ms", [30_000, 55_000_000])
@pytest.mark.parametrize("late", [False, True])
def test_answers_to_impressions_from_before_those_that_were_read_say_nothing(later_ms: int, late: bool) -> None:
    happened = answers(lambda at: at, later_ms=later_ms)
    since = [impression("ann", f"ad-{n}", START_MS - 50_000_000 + 1_000 * n) for n in range(300, 600)]
    if late:  # one that was long on its way
        since[7] = impression("ann", "ad-307", START_MS - 10**9)
    sample = seen([*since, *happened[300:]], partitioner(LANES)(b"ann"))
    assert (sample.answers, sample.pairs, sample.strays) == (300, 0, 0)


def test_what_is_read_begins_in_each_partition_at_another_time() -> None:
    lanes = {partitioner(LANES)(name.encode()): name for name in map(str, range(99))}
    parts = []
    for lane, begins_ms in ((0, START_MS - 10**8), (1, START_MS)):
        shown = [impression(lanes[lane], f"ad-{n}", begins_ms + n) for n in range(100)]
        told = {"time_ms": START_MS + 200, "impression_time_ms": START_MS - 1}
        clicks = [click(lanes[lane], f"ad-{n}", **told) for n in range(100, 150)]
        parts += [
            decoded(records(shown, lane), Source.IMPRESSION, LANES, START_MS + 60_000, LATE_MS),
            decoded(records(clicks, lane), Source.CLICK, LANES, START_MS + 60_000, LATE_MS),
        ]
    assert summed(parts).strays == 50


@pytest.mark.parametrize("lanes", [(4, 8), (8, 4)], ids=["more for clicks", "more for impressions"])
def test_topics_that_have_not_the_same_number_of_partitions_are_sampled_all_the_same(lanes: tuple[int, int]) -> None:
    """The doctor tells of them among the topics, and would tell nothing at all if it failed of the events."""
    user = next(name for name in map(str, range(99)) if partitioner(8)(name.encode()) >= 4)
    shown = [impression(user, f"ad-{n}", START_MS + n) for n in range(60)]
    done = [click(user, f"ad-{n}", START_MS + 90, impression_time_ms=START_MS + n + n % 3) for n in range(60)]
    told = ((shown, Source.IMPRESSION, lanes[0]), (done, Source.CLICK, lanes[1]))
    sample = summed(
        decoded(records(events, partitioner(of)(user.encode())), source, of, START_MS + 60_000, LATE_MS)
        for events, source, of in told
    )
    assert (sample.misplaced, sample.pairs, sample.strays) == (0, 20, 40)
