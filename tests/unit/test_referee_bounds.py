"""The referee's memories at their bounds: what is beyond one changes nothing of what is within."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from scoring.interleaving import Duel
from streams.experiments.duels import Credits, Drafted, showing_of
from streams.experiments.people import People
from streams.experiments.referee import Referee
from streams.wire import encode_json
from tests.unit.showing import see
from tests.unit.test_experiments import row, shown
from tests.unit.test_referee import switches
from tests.unit.test_referee_service import EndError, Shop


def test_an_ad_beyond_the_bound_has_no_category_and_one_within_it_may_change_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.experiments.referee.ADS_MAX", 2)
    referee = Referee()
    for ad, category in (("a", "shoes"), ("b", "hats"), ("c", "maps"), ("b", "shoes")):
        referee.take_ads([(ad.encode(), encode_json({"category": category}))])
    assert switches(referee, "a", "c", "b") == 0


def test_who_is_beyond_the_bound_adds_nothing_to_what_the_last_within_it_did() -> None:
    referee = Referee(users_max=1_024)  # as many as there is room for
    names = [f"u{user}".encode() for user in range(1_024)]
    referee.take_rows(names, np.concatenate([row(1, 1, 0)] * len(names)))
    known = referee.people.totals.copy()
    assert len(known) == len(names)
    referee.take_rows([b"more"], row(2, 90, 80))
    see(referee, [shown(5_000, 0, 3)])
    np.testing.assert_array_equal(referee.people.totals, known)
    assert referee.people.unwatched == 2


def test_that_people_are_beyond_the_bound_is_said_at_each_look_before_which_more_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.service._referee.people = People(0)
    shop.broker.rows, shop.looks = 2, 5  # one is read before each of the first looks
    with pytest.raises(EndError):
        asyncio.run(shop.service.run())
    assert shop.service._referee.people.unwatched == 2
    assert shop.said.count("people beyond the bound count in no experiment") == 2


def test_of_repeats_no_more_impressions_are_known_than_the_bound_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.experiments.referee.REPEATS_MAX", 10)
    referee = Referee()
    for time_ms in range(100):
        see(referee, [shown(1, 0, time_ms)])
        assert len(referee.latest) <= 10
    see(referee, [shown(1, 0, 99)])
    assert referee.people.totals[0, -1] == 100


def test_impressions_and_clicks_that_wait_for_each_other_are_given_up_beyond_their_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.experiments.duels.PENDING_MAX", 10)
    monkeypatch.setattr("streams.experiments.duels.EARLY_MAX", 10)
    credits_, duel = Credits(), Duel()
    for event in range(100):
        credits_.show(duel, event, Drafted(1, 0, 1))
        credits_.settle(1_000 + event, clicked=True)
    for event in range(100):
        credits_.show(duel, 1_000 + event, Drafted(1, 0, 1))
    assert duel.credit[0, 1] <= 10  # of clicks that came first, those that were not given up
    assert sum(credits_.settle(event, clicked=True) is not None for event in range(2_000)) <= 10


def test_of_outcomes_that_come_before_their_impressions_clicks_are_credited_once_and_others_never() -> None:
    credits_, duel = Credits(), Duel()
    for event in (5, 6):
        credits_.settle(event, clicked=event == 5)
    for event in (5, 5, 6):
        credits_.show(duel, event, Drafted(1, 0, 1))
    assert duel.credit.sum() == 1


def test_a_click_that_was_credited_is_not_credited_again_to_the_impression_when_that_is_repeated() -> None:
    credits_, duel = Credits(), Duel()
    credits_.show(duel, 5, Drafted(1, 0, 1))
    assert credits_.settle(5, clicked=True) == Drafted(1, 0, 1)
    credits_.show(duel, 5, Drafted(1, 0, 1))
    assert duel.credit.sum() == 0


def test_nobody_of_whom_no_row_has_come_is_idle() -> None:
    people = People()
    places = people.places(np.array([7, 8], dtype=np.uint64))
    people.seen[places[1]] = True
    assert people.idle().tolist() == [False, True]


def test_people_who_come_and_leave_for_ever_take_no_more_room() -> None:
    people, sizes = People(most=1_000), []
    for first in range(1, 20_000, 1_000):
        ids = np.arange(first, first + 1_000, dtype=np.uint64)
        people.places(ids)
        people.forget(ids)
        sizes.append((people.room, people._places.nbytes))
    assert (people.number, people.unwatched) == (1_000, 0)
    assert sizes[2:] == [sizes[2]] * 18


def test_an_outcome_is_credited_to_whose_impression_it_is_of_those_that_share_an_id_or_a_moment() -> None:
    credits_, duel = Credits(), Duel()
    told = [("e1", "ad-1", 5), ("e1", "ad-2", 5), ("e1", "ad-1", 6), ("e2", "ad-1", 5)]
    for person, one in enumerate(told):
        credits_.show(duel, showing_of(*one), Drafted(1, person, person % 2))
    won = [credits_.settle(showing_of(*one), clicked=True) for one in told]
    assert won == [Drafted(1, person, person % 2) for person in range(4)]
