"""The referee against what topics really hold: what is malformed, told twice, read late, begun anew or taken back."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.ids import id64s
from scoring.policies import arms_of
from scoring.rows import RowStore
from scoring.trial import SUMS
from scoring.update import apply
from streams.control_wire import Allocation, CohortSetting, ExperimentSetting
from streams.experiments.referee import Referee
from streams.experiments.registry import Bandit, next_cohort, start, stop
from streams.experiments.report import report
from streams.experiments.store import StoreError, load, save
from streams.experiments.watched import DAYS_MIN, Watched
from streams.wire import encode_json
from tests.builders import START_MS, catalogue, click, columns_of, impression
from tests.unit.showing import placed, see
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import draft, played, row, running, shown

SHOWN = {"event_id": "e", "user_id": "u", "ad_id": "a", "time_ms": 10, "slot": 0}


def restarted(referee: Referee, home: Path) -> Referee:
    """One that goes on from the other's file."""
    save(home / "x.npz", referee, {}, {})
    again = Referee()
    load(home / "x.npz", again)
    return again


@pytest.mark.parametrize(
    "fields",
    [
        {"placement_id": placed("u") + ".1--2"},
        {"placement_id": placed("u", (1, 3))},
        {"placement_id": placed("u", (1, 2**80 - 1))},
        {"time_ms": 2**63},
        {"time_ms": -1},
        {"slot": -1},
        {"slot": 10**12},
        {"user_id": ""},
        {"event_id": None},
    ],
)
@pytest.mark.parametrize(("setting", "arm"), [(running(), "0"), (start(duel_draft(), 1.0, 1), "2")])
def test_an_impression_that_no_shop_means_exposes_nobody_and_ends_no_referee(
    setting: ExperimentSetting, arm: str, fields: dict[str, object]
) -> None:
    referee = Referee()
    referee.follow(setting)
    see(referee, [encode_json(SHOWN | {"placement_id": placed("u") + f".1-{arm}"} | fields)])
    referee.take_rows([b"u"], row(20, 1, 0))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.users.sum() == 0
    assert watched.duel is None or not watched.duel.shown.any()


def test_an_arm_that_an_experiment_does_not_have_exposes_nobody_and_ends_no_referee() -> None:
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 2, 10), shown(2, 1, 10)])
    referee.take_rows([b"u1", b"u2"], np.concatenate([row(20, 1, 0)] * 2))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.users.tolist() == [0, 1]


def test_a_placement_whose_arm_is_negative_names_none() -> None:
    assert arms_of("0.1--2") == []


def test_an_impression_dated_in_the_future_keeps_nobody_from_counting_from_the_next_on() -> None:
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 1, 10**12), shown(1, 1, 30)])
    referee.take_rows([b"u1"], row(30, 1, 0))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.users.tolist() == [0, 1]


def test_impressions_of_one_placement_all_count_in_whatever_order_they_come() -> None:
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 0, time_ms) for time_ms in (12, 10, 11)])
    referee.take_rows([b"u1"], row(12, 3, 0))
    (watched,) = referee.look()
    assert referee.people.totals[0, SUMS.index("shown")] == 3
    assert watched.trial.before[0, SUMS.index("shown")] == 0


def test_an_experiment_that_is_stopped_is_over_whatever_else_its_message_says() -> None:
    referee, bandit = Referee(), start(draft(bandit=Bandit(0.1, 60)), 0.2, 1)
    referee.follow(bandit)
    ended = stop(bandit, "by hand", 9)
    referee.follow(msgspec.structs.replace(ended, arms=running().arms[::-1], high=0.0))
    (watched,) = referee.watched.values()
    assert watched.setting == ended


@pytest.mark.parametrize("another", [{}, {"warmth": 2}])
def test_an_experiment_that_is_taken_back_or_whose_name_is_anothers_now_is_over(
    another: dict[str, int], tmp_path: Path
) -> None:
    referee, bandit = Referee(), start(draft(bandit=Bandit(0.1, 60)), 0.2, 1)
    settings = {name: msgspec.structs.replace(bandit, number=number) for name, number in another.items()}
    for again in (referee, restarted(referee, tmp_path)):
        for setting in (bandit, *settings.values()):  # the topic is read whole, every time
            again.follow(setting)
        again.keep(settings)
        again.look()
        running = [one.setting.number for one in again.watched.values() if one.setting.status == "running"]
        assert running == [*another.values()]
        assert again.watched[bandit.number].next_cohort(None, 10**6) is None


def test_experiments_are_looked_at_in_the_order_of_their_numbers() -> None:
    referee = Referee()
    for number in (3, 1, 2):
        referee.follow(msgspec.structs.replace(running(), number=number, experiment=f"x{number}"))
    assert [one.setting.number for one in referee.look()] == [1, 2, 3]


@pytest.mark.parametrize(("ramp", "shares"), [(0.0, (0.5, 0.5)), (0.2, (1.1, -0.1))])
def test_a_bandit_that_no_command_makes_lets_nobody_in(ramp: float, shares: tuple[float, ...]) -> None:
    setting = msgspec.structs.replace(start(draft(bandit=Bandit(0.1, 60)), 0.2, 1), ramp=ramp)
    assert next_cohort(setting, None, shares, 60_001) is None


def test_a_referee_that_had_seen_nobody_goes_on_after_a_restart(tmp_path: Path) -> None:
    referee = Referee()
    referee.follow(running())
    again = restarted(referee, tmp_path)
    see(again, [shown(user, 0, 10) for user in range(1_500)])
    assert again.people.number == 1_500


def test_a_user_who_was_forgotten_and_comes_back_keeps_what_they_did_in_the_experiment(tmp_path: Path) -> None:
    referee = Referee()
    referee.follow(running())
    referee.take_rows([b"u1"], row(5, 400, 40))
    see(referee, [shown(1, 0, 10)])
    referee.take_rows([b"u1"], row(10, 410, 45))
    for at, (impressions, clicks) in enumerate(((0, 1), (5, 2), (8, 2)), start=30):
        referee.take_rows([b"u1"], row(at, impressions, clicks))
        referee = restarted(referee, tmp_path)
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.values["ctr"][0] == pytest.approx((5 + 2) / (10 + 8))
    assert watched.trial.before[0, SUMS.index("impressions")] == 400  # the covariate is what came before


def test_what_a_user_does_at_the_first_impression_that_they_ever_saw_counts() -> None:
    referee = Referee()
    referee.follow(running())
    see(referee, [shown(1, 0, 30)])
    referee.take_rows([b"u1"], row(30, 1, 1))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.values["ctr"][0] == 1.0


def test_what_users_did_before_each_time_that_they_were_forgotten_counts_once() -> None:
    referee = Referee()
    referee.follow(running())
    for at, (impressions, clicks) in enumerate(((1, 0), (7, 3), (2, 1), (1, 0), (4, 2)), start=10):
        referee.take_rows([b"u1"], row(at, impressions, clicks))
    assert referee.people.totals[0, 1:3].tolist() == [7 + 2 + 4, 3 + 1 + 2]


def test_a_row_that_is_less_by_a_moments_watching_alone_is_a_new_one() -> None:
    referee = Referee()
    for at, viewed_cs in enumerate((40, 10, 33), start=10):
        made = row(at, 1, 0)
        made["answered_viewed_cs"] = viewed_cs
        referee.take_rows([b"u1"], made)
    assert referee.people.totals[0, SUMS.index("impressions")] == 2
    assert referee.people.totals[0, SUMS.index("viewed_s")] == pytest.approx(0.4 + 0.33)


def test_what_was_seen_last_of_a_stopped_experiment_stands_whatever_users_do_after_it(tmp_path: Path) -> None:
    referee = played(1)
    (watched,) = referee.look()
    assert watched.last is not None
    told = report(watched.setting, watched.last, 9)
    for referee_, looks in ((referee, 1), (restarted(referee, tmp_path), 1), (played(1), 0)):
        referee_.follow(stop(running(), "", 9))
        later = np.concatenate([row(99, 900, 0)] * 400)
        referee_.take_rows([f"u{user}".encode() for user in range(400)], later)
        looked = referee_.look()
        assert len(looked) == looks  # of one that was never looked at nothing is told
        assert [report(running(), one.last, 9) for one in looked if one.last] == [told] * looks


def switches(referee: Referee, *ads: str) -> float:
    """How often the category changes for somebody who is shown ``ads``, one after the other."""
    see(referee, [shown(1, 0, at, ad=ad) for at, ad in enumerate(ads, start=10)])
    return float(referee.people.totals[0, SUMS.index("switches")])


def test_a_change_within_the_first_level_of_a_category_is_none_and_an_ad_that_is_not_known_hides_none() -> None:
    told = {"red": "shoes/red", "blue": "/shoes /blue", "hat": "hats"}
    for ads, changes in ((("red", "blue"), 0), (("red", "?", "hat"), 1), (("red", "?", "blue"), 0), (("?", "hat"), 0)):
        referee = Referee()
        referee.take_ads([(ad.encode(), encode_json({"category": category})) for ad, category in told.items()])
        assert switches(referee, *ads) == changes, ads


def test_changes_of_category_before_an_experiment_are_no_part_of_its_diversity() -> None:
    referee = Referee()
    referee.follow(running())
    referee.take_ads([(ad, encode_json({"category": ad.decode()})) for ad in (b"shoes", b"hats")])
    shows = [shown(1, 0, 10 + at, number=9, ad=("shoes", "hats")[at % 2]) for at in range(4)]
    see(referee, [*shows, shown(1, 0, 14, ad="hats"), shown(1, 0, 15, ad="shoes")])
    referee.take_rows([b"u1"], row(15, 6, 0))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.values["diversity"] == [1 / 2, 0]


STEPS, VIEWERS = 20, 60


def bytes_of(watched: Watched) -> int:
    """What is kept of an experiment's users."""
    users = (watched.exposed_arm, watched.exposed_ms, watched.exposed_after, watched.other_ms, watched.trial.blank)
    return sum(each.nbytes for each in (*users, watched.trial.arm, watched.trial.before, watched.trial.crossed))


def test_a_stopped_experiment_keeps_what_was_seen_last_and_none_of_its_users(tmp_path: Path) -> None:
    referee = played(1)
    (watched,) = referee.look()
    ended, told = stop(watched.setting, "enough", 2), watched.last
    assert bytes_of(watched) > 0
    referee.follow(ended)
    for again in (referee, restarted(referee, tmp_path)):
        for setting in (running(), ended):  # the topic is read whole, every time
            again.follow(setting)
        more = [f"late{user}".encode() for user in range(2_000)]  # more than there was room for
        see(again, [shown(user, 1, 40) for user in range(10)])
        again.take_rows(more, np.concatenate([row(50, 1, 0)] * len(more)))
        (watched,) = again.look()
        assert (watched.setting, bytes_of(watched)) == (ended, 0)
        assert watched.last is not None
        assert told is not None
        assert (watched.last.values, watched.last.users.tolist()) == (told.values, told.users.tolist())


def diversity(reads: list[list[int]], *, repeats: bool = False, restarts: Path | None = None) -> list[float]:
    """What a referee says that reads the steps of ``reads`` before the rows that hold them."""
    draw, referee = np.random.default_rng(3), Referee()
    referee.follow(running())
    referee.take_ads([(f"ad-{at}".encode(), encode_json({"category": f"kind-{at}/x"})) for at in range(4)])
    ads = draw.integers(0, 4, (STEPS, VIEWERS))
    users = [f"u{user}".encode() for user in range(VIEWERS)]
    steps = [
        [shown(user, user % 2, 100 + step, ad=f"ad-{ads[step, user]}") for user in range(VIEWERS)]
        for step in range(STEPS)
    ]
    for steps_read in reads:
        for step in steps_read:
            see(referee, steps[step] * (1 + repeats))
        if restarts:
            referee = restarted(referee, restarts)
            referee.take_ads([(f"ad-{at}".encode(), encode_json({"category": f"kind-{at}/x"})) for at in range(4)])
        if repeats:
            see(referee, steps[steps_read[-1]])
        for step in steps_read:
            rows = np.concatenate([row(100 + step, step + 1, 0)] * VIEWERS)
            referee.take_rows(users, rows)
    (watched,) = referee.look()
    assert watched.last is not None
    switched = ads[1:] != ads[:-1]
    assert watched.last.values["diversity"] == pytest.approx(
        [switched[:, arm::2].sum() / ads[:, arm::2].size for arm in (0, 1)]
    )
    return watched.last.values["diversity"]


def test_diversity_is_the_same_however_impressions_and_rows_are_read_and_repeated(tmp_path: Path) -> None:
    one_by_one = [[step] for step in range(STEPS)]
    live = diversity(one_by_one)
    assert diversity([list(range(STEPS))]) == live
    assert diversity(one_by_one, repeats=True) == live
    assert diversity(one_by_one, repeats=True, restarts=tmp_path) == live


def test_a_bandits_users_weigh_what_the_chances_of_their_own_cohort_say() -> None:
    referee, names = Referee(), [f"u{user}" for user in range(2_000)]
    referee.follow(start(draft(bandit=Bandit(0.1, 60), width=1.0), 0.25, 1))
    later = (CohortSetting(upto=0.5, shares=(0.9, 0.1)),)
    referee.allocate(Allocation(experiment="warmth", number=1, cohorts=later, time_ms=2))
    experiment = referee.watched[1].experiment
    cohort, (arm, chance) = experiment.cohort(id64s(names)), experiment.allocate(id64s(names))
    users = [name.encode() for name in names]
    referee.take_rows(users, np.concatenate([row(1, 1, 0)] * len(users)))
    see(referee, [shown(user, max(int(arm[user]), 0), 10) for user in range(len(users))])
    rows = np.concatenate([row(10, 2, 0)] * len(users))
    rows["answered_clicks"] = cohort == 0  # whom the second arm has most of
    referee.take_rows(users, rows)
    (watched,) = referee.look()
    assert watched.last is not None
    weighed = [((arm == at) * (cohort == 0) / chance).sum() / ((arm == at) / chance).sum() for at in (0, 1)]
    assert watched.last.users.tolist() == [(arm == 0).sum(), (arm == 1).sum()]  # and nobody who takes no part
    assert watched.last.values["ctr"] == pytest.approx(weighed)
    assert watched.last.split_p_value > 0.01


def test_what_people_find_by_themselves_is_nothing_that_they_were_shown_has_earned() -> None:
    shows = [impression("u1", f"ad-{at}", START_MS + at, placement_id=placed("u1", (1, 0))) for at in range(4)]
    told = {"impression_time_ms": START_MS, "viewed_s": 2.5}
    bought = {"kind": "purchase", "value_micros": 7}
    events = [
        *shows,
        click("u1", "ad-0", START_MS + 10, **told),
        click("u1", "ad-9", START_MS + 11, viewed_s=60.0),
        click("u1", "ad-0", START_MS + 12, impression_time_ms=START_MS, **bought),
        click("u1", "ad-8", START_MS + 13, **bought),
    ]
    referee, store = Referee(), RowStore()
    referee.follow(running())
    store.row_of(b"u1")
    referee.take_rows([b"u1"], store.rows[:1].copy())
    see(referee, [encode_json(one) for one in shows])
    apply(store, columns_of(store, events), catalogue(20))
    referee.take_rows([b"u1"], store.rows[:1])
    (watched,) = referee.look()
    assert watched.last is not None
    found = {metric: values[0] for metric, values in watched.last.values.items()}
    assert found == {"ctr": 0.25, "cvr": 1.0, "revenue_micros": 7.0 / DAYS_MIN, "viewed_s": 2.5 / 4, "diversity": 0.0}
    assert store.rows["clicks"][0] == store.rows["purchases"][0] == 2  # the model is told all that they did


def test_pages_left_open_for_years_make_nobody_new_and_each_view_counts_as_a_minute() -> None:
    referee, store = Referee(), RowStore()
    told = {"impression_time_ms": START_MS, "kind": "view", "viewed_s": 86_400.0}
    views = [click("u1", "ad-0", START_MS + at, event_id=f"v{at}", **told) for at in range(2)]
    events = columns_of(store, [impression("u1", "ad-0", START_MS), *views])
    seconds = []
    for viewed_cs in (0, 2**32 - 100):
        store.rows["answered_viewed_cs"][0] = viewed_cs
        apply(store, events, catalogue(20))
        referee.take_rows([b"u1"], store.rows[:1])
        seconds.append(referee.people.totals[0, SUMS.index("viewed_s")])
        events["event"], events["offset"] = events["event"] + np.uint64(1_000_000), events["offset"] + 10
        events["time_ms"] += 60_000
        events["shown_ms"] += 60_000
    assert seconds == [120.0, pytest.approx((2**32 - 1) / 100)]
    assert referee.people.totals[0, SUMS.index("impressions")] == 2


@pytest.mark.parametrize("left", [0, 1, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_or_is_none_is_told_with_what_to_do(left: float, tmp_path: Path) -> None:
    save(file := tmp_path / "x.npz", played(1), {}, {})
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole))] if left < 1 else whole[:30] + bytes(len(whole) - 30))
    with pytest.raises(StoreError, match=r"cannot be read .*; delete it to start anew from the topics"):
        load(file, Referee())
