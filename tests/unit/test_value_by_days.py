"""Value a user and day: what is found early is still found after a month of people who go on buying."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.trial import SUMS, Look, Trial
from scoring.units import DAY_MS
from streams.cli import experiment_report
from streams.control_wire import ExperimentSetting, Guardrail
from streams.experiments.referee import Referee
from streams.experiments.registry import ramp_to, start, stop
from streams.experiments.report import breached, decode_report, encode_report, report
from streams.experiments.store import VERSION, load, save
from streams.experiments.watched import DAYS_MIN, Watched
from streams.wire import encode_json
from tests.unit.showing import see
from tests.unit.test_experiments import draft, row, running, shown

VALUE = SUMS.index("revenue_micros")
USERS, ALL_IN_H = 2_000, 2
LOOKS_H = (*range(1, 13), *range(24, 28 * 24 + 1, 36))
STARTED_MS = 20_000 * DAY_MS
RAILED = start(draft(guardrails=(Guardrail(metric="revenue_micros", most_loss=0.05),)), 1.0, STARTED_MS)


def watched(seed: int, lift: float) -> Iterator[Look]:
    """Looks at four weeks of people who are all in within two hours, and buy every four days on the mean: some hardly
    ever, some each day; those of the second arm ``lift`` more often.
    """
    draw, trial = np.random.default_rng(seed), Trial(np.array([0.5, 0.5]))
    arm, a_day = draw.integers(0, 2, USERS), 0.25 * draw.exponential(size=USERS)
    came_h, totals, last_h = np.arange(1, USERS + 1) * ALL_IN_H / USERS, np.zeros((USERS, len(SUMS))), 0
    for now_h in LOOKS_H:
        new = np.flatnonzero((came_h > last_h) & (came_h <= now_h))
        trial.expose(new, arm[new], totals)
        stayed = np.clip(now_h - np.maximum(came_h, last_h), 0, None) / 24
        totals[:, VALUE] += 20e6 * draw.poisson(a_day * (1 + lift * arm) * stayed)
        within, last_h = int((came_h <= now_h).sum()), now_h
        yield trial.look(totals[:within], None, np.maximum((now_h - came_h[:within]) / 24, DAYS_MIN))


def test_more_value_that_is_found_early_is_still_found_after_a_month() -> None:
    for seed in range(5):
        found = [look.differences["revenue_micros"].get(1) for look in watched(seed, lift=0.4)]
        surely = [one is not None and one.low > 0 for one in found]
        assert surely.index(True) < len(surely) // 2, seed
        assert all(surely[-5:]), seed


def test_arms_that_are_worth_the_same_raise_few_false_alarms_while_people_go_on_buying() -> None:
    alarms = 0
    for seed in range(30):
        found = [look.differences["revenue_micros"].get(1) for look in watched(seed, lift=0.0)]
        alarms += any(one is not None and not one.low <= 0 <= one.high for one in found)
    assert alarms <= 2


def test_a_guardrail_on_value_that_is_broken_stays_broken() -> None:
    for seed in range(5):
        broken = [breached(RAILED, look) is not None for look in watched(seed, lift=-0.5)]
        assert all(broken[broken.index(True) :]), seed


def bought(time_ms: int, micros: int) -> np.ndarray:
    made = row(time_ms, 1, 0)
    made["answered_value_micros"] = micros
    return made


def referee_of_two() -> Referee:
    """Of two people of an arm each, who were exposed a day after each other, and have bought for 600 and 70."""
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 0, DAY_MS), shown(2, 1, 2 * DAY_MS)])
    referee.take_rows([b"u1"], bought(DAY_MS, 600))
    referee.take_rows([b"u2"], bought(2 * DAY_MS, 70))
    return referee


def values(referee: Referee, judged_ms: int = 0) -> list[float]:
    (one,) = referee.look(judged_ms)
    assert one.last is not None
    return one.last.values["revenue_micros"]


def test_value_is_divided_by_the_days_from_the_exposing_impression_to_the_newest_row() -> None:
    referee = referee_of_two()
    assert values(referee) == [600, pytest.approx(70 / DAYS_MIN)]
    see(referee, [shown(1, 0, 3 * DAY_MS)])  # again: the first exposure stands
    referee.take_rows([b"u1"], bought(4 * DAY_MS, 600))
    assert values(referee) == [200, 35]
    referee.take_rows([b"u2"], bought(3 * DAY_MS, 70))  # another lane's, which is behind
    assert values(referee) == [200, 35]


def test_a_person_whose_row_is_dated_a_year_ahead_makes_nobodys_days_longer() -> None:
    referee = referee_of_two()
    referee.take_rows([b"u1"], bought(4 * DAY_MS, 600))
    referee.take_rows([b"u3"], bought(365 * DAY_MS, 5))
    assert values(referee, judged_ms=4 * DAY_MS) == [200, 35]


def test_a_referee_that_starts_again_goes_on_at_the_same_time(tmp_path: Path) -> None:
    referee, again = referee_of_two(), Referee()
    referee.take_rows([b"u1"], bought(4 * DAY_MS, 600))
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again)
    assert values(again) == values(referee) == [200, 35]


def made_of_version(file: Path, version: int) -> None:
    """Let the file be one that was written by such a version, from 4 on."""
    with np.load(file) as npz:
        saved = dict(npz)
    about = msgspec.json.decode(saved["about"].tobytes()) | {"version": version}
    if version == 4:
        del about["now_ms"]
        for told in about["experiments"].values():
            if told["last"]:
                del told["last"]["by_days"]
    np.savez(file, allow_pickle=False, **saved | {"about": np.frombuffer(encode_json(about), dtype=np.uint8)})


def test_of_a_file_that_told_value_a_user_what_was_planned_by_it_is_let_go_and_the_rest_is_kept(tmp_path: Path) -> None:
    file, referee, again = tmp_path / "x.npz", referee_of_two(), Referee()
    trial = referee.watched[1].trial
    trial.widths = trial.evidence = {("revenue_micros", 1): 7.0, ("ctr", 1): 2.0}
    save(file, referee, {}, {})
    made_of_version(file, 4)
    load(file, again)
    assert again.watched[1].trial.widths == again.watched[1].trial.evidence == {("ctr", 1): 2.0}
    assert again.now_ms == 2 * DAY_MS  # the newest that is known


def test_a_stopped_experiments_value_is_told_in_the_unit_that_it_was_found_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    referee, told = referee_of_two(), []
    referee.look()
    referee.follow(stop(running(), "over", 9))
    for version in (VERSION, 4):
        file, again = tmp_path / f"{version}.npz", Referee()
        save(file, referee, {}, {})
        made_of_version(file, version)
        load(file, again)
        (one,) = again.look()
        assert one.last is not None
        told.append(decode_report(encode_report(report(one.setting, one.last, 10))))
        experiment_report.show(told[-1])
    assert [one.value_per for one in told] == ["user_day", "user"]
    said = " ".join(capsys.readouterr().out.split())
    assert re.findall("value is that of a user( and day)?", said) == [" and day", ""]


@pytest.mark.parametrize("days", [None, np.full(2, 0.5)])
def test_what_is_seen_without_days_is_value_a_user(days: np.ndarray | None) -> None:
    trial, totals = Trial(np.array([0.5, 0.5])), np.zeros((2, len(SUMS)))
    trial.expose(np.arange(2), np.arange(2), totals.copy())
    totals[:, VALUE] = 6
    look = trial.look(totals, None, days)
    assert (look.values["revenue_micros"], look.by_days) == (([6, 6], False) if days is None else ([12, 12], True))


def after_four_weeks(dated_ms: int, begun: ExperimentSetting = RAILED) -> Look:
    """Of 1,000 people, of whom the second arm's buy for a half less; one of its exposures is dated ``dated_ms``."""
    draw, referee, arm = np.random.default_rng(7), Referee(), np.arange(1_000) % 2
    referee.follow(begun)
    exposed_ms = STARTED_MS + np.arange(1_000)
    exposed_ms[-1] = dated_ms
    see(referee, [shown(user, int(arm[user]), int(exposed_ms[user])) for user in range(1_000)])
    made = np.concatenate([row(STARTED_MS + 28 * DAY_MS, 1, 0)] * 1_000)
    made["answered_value_micros"] = 20e6 * draw.poisson(7 * (1 - 0.5 * arm))
    referee.take_rows([f"u{user}".encode() for user in range(1_000)], made)
    (one,) = referee.look()
    assert one.last is not None
    return one.last


UNTOLD = msgspec.structs.replace(RAILED, started_ms=0)
RAMPED, UNTOLD_RAMPED = (ramp_to(begun, 1.0, STARTED_MS + 14 * DAY_MS) for begun in (RAILED, UNTOLD))


@pytest.mark.parametrize(
    "begun",
    [RAILED, UNTOLD, RAMPED, UNTOLD_RAMPED],
    ids=["told", "not told", "told, and more let in since", "not told, and more let in since"],
)
@pytest.mark.parametrize("dated_ms", [0, STARTED_MS // 1_000], ids=["epoch", "in seconds"])
def test_one_impression_that_is_dated_wrongly_neither_moves_value_nor_keeps_a_guardrail_from_ending_what_loses(
    dated_ms: int, begun: ExperimentSetting
) -> None:
    right, wrong = after_four_weeks(STARTED_MS), after_four_weeks(dated_ms, begun)
    assert wrong.values["revenue_micros"] == pytest.approx(right.values["revenue_micros"], rel=0.001)
    assert breached(RAILED, wrong) == breached(RAILED, right)
    assert breached(RAILED, right) is not None


def test_an_experiment_that_does_not_tell_since_when_it_runs_does_so_since_hardly_anybody_was_in_it() -> None:
    one, people = Watched.of(UNTOLD_RAMPED), np.arange(1_000)
    one.grow(1_200)
    assert (one.days(STARTED_MS) > 0).all()  # while nobody is
    for person in people:
        one.expose(person, 0, 5 if person == 9 else STARTED_MS + person * DAY_MS // 100, np.zeros(2))
    days = one.days(STARTED_MS + 20 * DAY_MS)
    assert days[10:1_000] == pytest.approx(20 - people[10:] / 100)
    assert days[:10] == pytest.approx(20 - 10 / 100)  # a hundredth of them, who is misdated among them


def test_who_was_in_an_experiment_long_before_the_others_decides_no_value_alone() -> None:
    draw, users = np.random.default_rng(8), 400
    trial, totals = Trial(np.array([0.5, 0.5])), np.zeros((users, len(SUMS)))
    trial.expose(np.arange(users), np.arange(users) % 2, totals.copy())
    totals[:, VALUE] = 20e6 * draw.poisson(0.3, users)
    look = trial.look(totals, None, np.where(np.arange(users) == 0, 14, 0.25))
    assert not look.heaviest["revenue_micros"]
    assert 1 in look.differences["revenue_micros"]


def test_an_experiment_knows_when_it_was_started_however_often_more_users_are_let_in() -> None:
    setting = ramp_to(start(draft(), 0.1, 20), 0.5, 30)
    assert (setting.started_ms, setting.time_ms) == (20, 30)
    assert stop(setting, "", 40).started_ms == 20


def test_who_is_judged_anew_by_a_row_of_two_weeks_is_judged_by_the_days_after_it() -> None:
    people, newest = range(400), STARTED_MS + 16 * DAY_MS
    for begun in (RAILED, UNTOLD):
        referee = Referee()
        referee.follow(begun)
        see(referee, [shown(user, user % 2, STARTED_MS + user) for user in people])
        for day, spent in ((14, 14_000), (16, 16_000)):  # a thousand a day, and all rows before these are lost
            rows = np.concatenate([row(STARTED_MS + day * DAY_MS, 10 * day, 0)] * len(people))
            rows["answered_value_micros"] = spent
            referee.take_rows([f"u{user}".encode() for user in people], rows)
        assert referee.now_ms == newest
        assert values(referee) == pytest.approx([1_000, 1_000])
        see(referee, [shown(400, 0, newest)])  # somebody new, whose days begin with the impression
        referee.take_rows([b"u400"], row(newest, 1, 0))
        one = referee.watched[1]
        assert one.days(newest + DAY_MS)[[0, 400]] == pytest.approx([3, 1])
