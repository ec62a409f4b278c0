"""When a worker is of use, and when it is found dead."""

from dataclasses import replace

import pytest

from streams.vitals import Judge, LaneVitals, Vitals

LOOK_MS = 2_000
WELL = Vitals(polls=1, joined=True)


def judge() -> Judge:
    return Judge(stall_ms=60_000, silence_ms=30_000, rebalance_limit_ms=300_000)


def lane(*mark: int, busy: bool = True) -> dict[int, LaneVitals]:
    return {3: LaneVitals("running", mark, busy)}


def looks(watch: Judge, vitals: list[Vitals]) -> list[int]:
    """The looks, from 1, at which the worker was found dead."""
    return [number for number, now in enumerate(vitals, start=1) if watch.look(now, LOOK_MS)]


def polling(count: int, **fields: object) -> list[Vitals]:
    return [replace(WELL, polls=number, **fields) for number in range(1, count + 1)]  # type: ignore[arg-type]  # by name


def test_a_lane_that_stands_still_with_records_to_read_is_found_after_the_limit() -> None:
    assert looks(judge(), polling(31, lanes=lane(5, 7))) == [31]


def test_a_lane_that_gets_on_at_times_is_never_found() -> None:
    assert looks(judge(), [replace(now, lanes=lane(now.polls // 25, 7)) for now in polling(200)]) == []


def test_a_lane_with_nothing_to_read_may_stand_still_for_ever() -> None:
    assert looks(judge(), polling(500, lanes=lane(5, 7, busy=False))) == []


def test_a_lane_that_is_taken_over_for_ever_is_found_too() -> None:
    taken = {3: LaneVitals("taking over", (0,), busy=True)}
    assert looks(judge(), polling(31, lanes=taken)) == [31]


def test_a_silent_poll_loop_is_found_after_its_limit() -> None:
    assert looks(judge(), [WELL] * 16) == [16]


def test_a_rebalance_counts_neither_as_silence_nor_as_standing_still() -> None:
    watch = judge()
    stuck = replace(WELL, lanes=lane(5, 7))
    assert looks(watch, [stuck] * 15) == []
    assert looks(watch, [replace(stuck, joined=False)] * 100) == []
    assert looks(watch, [stuck] * 14) == []  # and both are counted anew after it


def test_a_rebalance_without_end_is_found_but_not_a_catalogue_that_waits_for_its_broker() -> None:
    assert looks(judge(), [replace(WELL, joined=False)] * 150) == [150]
    assert looks(judge(), [Vitals(unread=("ads",))] * 1_000) == []


def test_a_worker_that_ends_already_is_left_to_end() -> None:
    assert looks(judge(), [replace(WELL, ending="stopping")] * 100) == []


def test_the_verdict_names_the_lane_and_where_it_stands() -> None:
    watch = judge()
    verdicts = [watch.look(now, LOOK_MS) for now in polling(31, lanes=lane(5, 7))]
    assert "lane 3 (running) has stood at (5, 7) for 60 s" in verdicts[-1]


@pytest.mark.parametrize(
    ("vitals", "reason"),
    [
        (WELL, ""),
        (replace(WELL, lanes=lane(1)), ""),
        (replace(WELL, unread=("ads", "tones")), "topics not yet read to their end: ads, tones"),
        (replace(WELL, joined=False), "joined or rebalanced"),
        (replace(WELL, lanes={2: LaneVitals("taking over", (0,), busy=True)}), r"lanes [2] are being taken over"),
        (replace(WELL, ending="RuntimeError: the pump ended"), "the pump ended"),
    ],
)
def test_a_worker_is_ready_when_every_lane_that_it_holds_runs(vitals: Vitals, reason: str) -> None:
    assert reason in vitals.unready()
    assert bool(reason) == bool(vitals.unready())


def test_a_lane_that_stands_still_is_doubted_long_before_its_worker_must_end() -> None:
    watch = judge()
    assert looks(watch, polling(5, lanes=lane(5, 7))) == []
    assert watch.doubt == ""
    watch.look(replace(WELL, polls=6, lanes=lane(5, 7)), LOOK_MS)
    assert watch.doubt == "lane 3 (running) has stood at (5, 7) for 10 s, and there is more to read"
    watch.look(replace(WELL, polls=7, lanes=lane(5, 8)), LOOK_MS)
    assert watch.doubt == ""


@pytest.mark.parametrize("gone", [{"ending": "stopping"}, {"joined": False}, {"polls": 9}])
def test_of_a_lane_that_is_given_back_nothing_is_doubted(gone: dict[str, object]) -> None:
    watch = judge()
    looks(watch, polling(8, lanes=lane(5, 7)))
    watch.look(replace(WELL, **gone), LOOK_MS)  # type: ignore[arg-type]  # by name
    assert watch.doubt == ""


def test_a_worker_of_which_its_watchdog_doubts_is_not_ready_and_says_why() -> None:
    assert replace(WELL, lanes=lane(5), doubt="shut out").unready() == "shut out"
    assert replace(WELL, lanes=lane(5), doubt="shut out", ending="the end").unready() == "the end"
