"""What the referee takes for the past of people whose first row it reads late, all at once, or after a loss."""

from pathlib import Path

import numpy as np
import pytest

from scoring.rows import ROW
from scoring.trial import SUMS
from streams.experiments.referee import Referee
from streams.experiments.report import breached
from streams.experiments.watched import DAYS_MIN
from streams.wire import encode_json
from tests.unit.consenting import erasure
from tests.unit.showing import see
from tests.unit.test_experiments import row, running, shown
from tests.unit.test_referee import restarted

USERS = 4_000
NAMES = [f"u{user}".encode() for user in range(USERS)]
ARM = np.arange(USERS) % 2
IMPRESSIONS, CLICKS = SUMS.index("impressions"), SUMS.index("clicks")


def referee_of(*impressions: bytes) -> Referee:
    referee = Referee()
    referee.follow(running())
    see(referee, impressions)
    return referee


def test_an_arm_that_loses_breaks_its_guardrail_though_the_first_rows_that_are_read_hold_what_it_lost() -> None:
    draw, referee = np.random.default_rng(5), referee_of(*(shown(user, ARM[user], 10) for user in range(USERS)))
    rate = np.clip(draw.gamma(1.5, 0.1 / 1.5, USERS), 0, 0.9) * np.where(ARM == 1, 0.7, 1.0)
    rows = np.zeros(USERS, dtype=ROW)
    for time_ms, impressions in ((50, 60), (90, 20)):
        rows["impressions"] += np.uint32(impressions)
        rows["answered_clicks"] += draw.poisson(rate * impressions).astype(np.uint32)
        rows["time_ms"] = time_ms
        referee.take_rows(NAMES, rows.copy())
    (watched,) = referee.look()
    assert watched.last is not None
    found = watched.last.differences["ctr"][1]
    assert found.low <= -0.03 <= found.high
    assert breached(watched.setting, watched.last) is not None


def test_an_arm_of_more_slots_keeps_what_people_do_at_the_first_of_them() -> None:
    slots = 1 + 2 * ARM
    told = [shown(user, ARM[user], 10 + slot) for user in range(USERS) for slot in range(slots[user])]
    referee, rows = referee_of(*told), np.zeros(USERS, dtype=ROW)
    rows["time_ms"], rows["impressions"] = 9 + slots, slots
    rows["answered_value_micros"] = 7
    referee.take_rows(NAMES, rows)
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.values["revenue_micros"] == pytest.approx([7.0 / DAYS_MIN] * 2)


def test_who_was_shown_more_before_the_exposing_impression_than_after_it_counts_from_their_first_row() -> None:
    before = [encode_json({"event_id": f"e{at}", "user_id": "u1", "ad_id": "a", "time_ms": at}) for at in range(9)]
    referee = referee_of(*before, shown(1, 0, 10))
    referee.take_rows([b"u1"], row(10, 10, 9))
    referee.take_rows([b"u1"], row(11, 14, 10))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.values["ctr"][0] == pytest.approx(1 / 4)
    assert watched.trial.blank[0]


def test_whose_past_is_hidden_in_their_first_row_has_none_that_another_at_their_place_takes_over(
    tmp_path: Path,
) -> None:
    referee = referee_of(shown(1, 0, 10))
    referee.take_rows([b"u1"], row(20, 500, 40))
    referee = restarted(referee, tmp_path)
    (watched,) = referee.watched.values()
    assert watched.trial.blank[:1].tolist() == [True]
    assert watched.trial.before[0, [IMPRESSIONS, CLICKS]].tolist() == [500, 40]  # where the outcome begins
    referee.settle([erasure("u1", 30)], 1)
    see(referee, [shown(2, 0, 40)])
    referee.take_rows([b"u2"], row(40, 1, 1))
    assert (watched.trial.arm[0], watched.trial.blank[0]) == (0, False)
    assert referee.people.number == 1


def test_of_a_past_that_was_seen_the_covariate_stays_beside_others_whose_first_row_is_late() -> None:
    referee = Referee()
    referee.follow(running())
    seen = NAMES[:400]
    rows = np.zeros(len(seen), dtype=ROW)
    rows["time_ms"], rows["impressions"], rows["answered_clicks"] = 1, 10, np.arange(400) % 10
    referee.take_rows(seen, rows)
    late = range(400, 500)
    see(referee, [shown(user, ARM[user], 10) for user in (*range(400), *late)])
    rows["time_ms"], rows["impressions"], rows["answered_clicks"] = 10, 20, 2 * (np.arange(400) % 10)
    referee.take_rows(seen, rows)
    first = np.concatenate([row(10, 900, user % 7) for user in late])
    referee.take_rows([NAMES[user] for user in late], first)
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.trial.blank[:500].tolist() == [False] * 400 + [True] * 100
    assert watched.last.differences["ctr"][1].variance_cut > 0.9
