"""A placement that was made for somebody else, as a page from before a login: it exposes nobody to anything."""

import numpy as np
import pytest

from scoring.assignment import OUTSIDE
from scoring.ids import id64s
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.rows import ROW
from streams.behaviour.personal import personalisation
from streams.experiments.referee import Referee
from streams.experiments.registry import start
from streams.logs import Event
from streams.wire import encode_json
from tests.builders import START_MS, ad, impression
from tests.unit.showing import placed, see
from tests.unit.test_behaviour import behaviour_of
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import running

PEOPLE = 3_000


def test_who_logs_in_on_a_visitors_page_counts_in_the_arm_of_their_own_placements_alone() -> None:
    referee = Referee()
    referee.follow(running(width=0.5))
    users = [f"u{user}" for user in range(PEOPLE)]
    visitors = [f"cookie-{user}" for user in range(PEOPLE)]
    arms, before = (referee.watched[1].experiment.assign(id64s(names)).tolist() for names in (users, visitors))
    shows = []
    for user, visitor, arm, former in zip(users, visitors, arms, before, strict=True):
        tag = [(1, former)] if former != OUTSIDE else []
        shows.append(impression(user, time_ms=10, placement_id=placed(visitor, *tag)))
        if arm != OUTSIDE:
            shows.append(impression(user, time_ms=20, placement_id=placed(user, (1, arm))))
    see(referee, map(encode_json, shows))
    rows = np.zeros(PEOPLE, dtype=ROW)
    rows["time_ms"], rows["impressions"] = 30, 2
    referee.take_rows([user.encode() for user in users], rows)
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.users.tolist() == [arms.count(0), arms.count(1)]
    assert watched.last.crossed == 0
    assert referee.people.number == PEOPLE  # what they saw is theirs, whoever it was made for


def test_a_click_on_somebody_elses_interleaved_page_prefers_no_ranking() -> None:
    referee = Referee()
    referee.follow(start(duel_draft(), 1.0, 2))
    for user in ("u1", "u2"):
        see(referee, [encode_json(impression(user, slot=0, placement_id=placed("u1", (1, 2))))])
    (watched,) = referee.look()
    assert watched.score is not None
    assert watched.score.people == len(referee.credits.pending) == 1


@pytest.mark.parametrize("logged_in", [0, 200])
def test_a_report_compares_people_by_the_receipts_of_their_own_placements(logged_in: int) -> None:
    events: list[Event] = []
    receipts: list[dict[str, object]] = []

    def show(user: str, owner: str, arm: str, time_ms: int) -> None:
        name = f"{owner}-{user}-{time_ms}"
        made = {"placement_id": name, "user_id": owner, "arm": arm}
        receipts.append(made | {"policy": {"control_share": 0.5}})
        events.append(impression(user, "a", START_MS + time_ms, placement_id=name))

    for number in range(400):
        arm, other = (CONTROL_ARM, ENGINE_ARM)[:: 1 if number % 2 else -1]
        if number < logged_in:  # their page is still the visitor's, who was in the other group
            show(f"u-{number}", f"cookie-{number}", other, 0)
        show(f"u-{number}", f"u-{number}", arm, 1_000)
    found = personalisation(behaviour_of(events, [ad("a")], receipts))
    assert found is not None
    assert (found.people, found.crossed) == ({"control": 200, "personalised": 200}, 0)
    assert found.impressions == found.people
