"""One person who has most of what is counted decides a ratio alone: nothing is concluded then, and it is said why."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.confidence import ONE_SHARE_MAX
from scoring.interleaving import SECOND, Duel
from scoring.trial import METRICS, SUMS, Look, Trial
from streams.cli import experiment_report
from streams.control_wire import Guardrail
from streams.experiments.findings import duel_finding, trial_finding
from streams.experiments.registry import start
from streams.experiments.report import ExperimentReport, breached, report
from streams.experiments.store import load, save
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import draft, played

IMPRESSIONS, CLICKS = SUMS.index("impressions"), SUMS.index("clicks")
SETTING = start(draft(primary="ctr", guardrails=(Guardrail(metric="ctr", most_loss=0.05),)), 1.0, 2)
USERS, EACH = 400, 40


def alike(seed: int, heavy: int, whose: int = 1) -> Look:
    """Arms whose people are drawn from one law; one of the arm ``whose`` has ``heavy`` impressions, and no click."""
    draw, totals = np.random.default_rng(seed), np.zeros((USERS, len(SUMS)))
    trial, arm = Trial(np.array([0.5, 0.5])), np.arange(USERS) % 2
    trial.expose(np.arange(USERS), arm, totals.copy())
    totals[:, IMPRESSIONS] = EACH
    totals[:, CLICKS] = draw.binomial(EACH, draw.beta(2, 18, USERS))
    totals[whose, [IMPRESSIONS, CLICKS]] = heavy, 0
    return trial.look(totals)


def test_one_page_that_reloads_ends_no_experiment_and_is_told_by_its_share() -> None:
    for seed in range(10):
        look = alike(seed, heavy=50_000)
        assert look.differences["ctr"] == {}
        assert breached(SETTING, look) is None
        found = trial_finding(SETTING, look)
        share = 50_000 / (50_000 + EACH * (USERS / 2 - 1))
        assert (found.code, found.arms, found.by) == ("one_decides", ("warmer",), pytest.approx(share))
        assert look.users.tolist() == [USERS / 2] * 2  # heads count


def test_one_person_of_the_arm_that_others_are_compared_with_decides_as_well() -> None:
    look = alike(4, heavy=50_000, whose=0)
    assert look.differences["ctr"] == {}
    assert look.heaviest["ctr"].keys() == {0}


def test_of_a_bandit_who_weighs_much_decides_by_that() -> None:
    arm, cohort, totals = np.arange(USERS) % 2, np.zeros(USERS, dtype=np.int64), np.zeros((USERS, len(SUMS)))
    trial, cohort[-1] = Trial(np.array([[0.5, 0.5], [0.9, 0.1]])), 1  # who came to the second arm by a chance of .1
    trial.expose(np.arange(USERS), arm, totals.copy())
    totals[:, IMPRESSIONS], totals[-1, IMPRESSIONS] = EACH, 5 * EACH
    totals[:, CLICKS] = 1 + np.arange(USERS) // 2 % 3
    look = trial.look(totals, cohort)
    assert look.heaviest["ctr"] == {1: pytest.approx(10 * 5 / (10 * 5 + 2 * (USERS / 2 - 1)))}
    assert look.differences["ctr"] == {}


@pytest.mark.parametrize("above", [False, True])
def test_who_has_a_tenth_of_an_arm_is_one_of_many_and_who_has_more_decides(above: bool) -> None:
    others = EACH * (USERS // 2 - 1)
    look = alike(1, heavy=int(others * ONE_SHARE_MAX / (1 - ONE_SHARE_MAX)) + above)
    assert (look.differences["ctr"] == {}) == above
    assert look.heaviest["ctr"].keys() == ({1} if above else set())


def test_a_metric_that_one_person_decides_is_told_in_words_and_numbers_and_the_others_are_compared() -> None:
    look = alike(2, heavy=50_000)
    told = msgspec.json.decode(msgspec.json.encode(report(SETTING, look, 9)), type=ExperimentReport)
    (doubt,) = told.doubts
    assert (doubt.metric, doubt.arm, doubt.expected) == ("ctr", "warmer", ONE_SHARE_MAX)
    assert doubt.words == told.verdict
    assert doubt.words == (
        "one person made 86.3% of warmer's impressions (10% at most): probably a bot or a page that reloads"
    )
    assert {metric for metric in METRICS if look.heaviest[metric]} == {"ctr"}


def test_while_there_is_too_little_of_all_nobody_is_said_to_decide() -> None:
    trial, totals = Trial(np.array([0.5, 0.5])), np.zeros((4, len(SUMS)))
    trial.expose(np.arange(4), np.arange(4) % 2, totals)
    look = trial.look(totals + 1)
    assert not any(look.heaviest.values())
    assert trial_finding(SETTING, look).code == "too_little"


@pytest.mark.parametrize(
    ("clickers", "code"),
    [
        ((8, 8), "too_little"), ((9, 9), "too_little"), ((10, 10), "one_decides"),
        ((60, 8), "too_little"), ((8, 60), "too_little"),
    ],
)  # fmt: skip
def test_while_fewer_people_than_would_have_a_tenth_each_have_clicked_they_are_too_few_and_nobody_is_the_culprit(
    clickers: tuple[int, int], code: str
) -> None:
    arm, totals = np.repeat([0, 1], 200), np.zeros((USERS, len(SUMS)))
    trial, clicked = Trial(np.array([0.5, 0.5])), np.arange(USERS) % 200 < np.repeat(clickers, 200)
    trial.expose(np.arange(USERS), arm, totals.copy())
    totals[clicked, CLICKS] = 4
    totals[200, CLICKS] += 1  # one of the second arm's has more than the others
    totals[clicked, SUMS.index("conversions")] = 1
    look = trial.look(totals)
    assert look.differences["cvr"] == {}
    assert trial_finding(msgspec.structs.replace(SETTING, primary="cvr"), look).code == code


def test_a_report_on_the_screen_says_of_which_metric_one_person_decides(capsys: pytest.CaptureFixture[str]) -> None:
    told = report(msgspec.structs.replace(SETTING, primary="viewed_s"), alike(3, heavy=50_000), 9)
    experiment_report.show(told)
    said = " ".join(capsys.readouterr().out.split())
    assert "one decides" in said
    assert said.count("one person made 86.3% of warmer's impressions") == 1


def clicked(heavy: int) -> Duel:
    """400 people of one click each, half of them on either's picks, and one of ``heavy`` on the second's."""
    duel, credit = Duel(), np.tile(np.eye(2), (200, 1))
    for person in range(401):
        duel.show(person)
    duel.credit[:400] = credit
    duel.credit[400, SECOND] = heavy
    return duel


def test_one_person_who_clicks_all_day_prefers_nothing_for_the_others() -> None:
    duel, many = clicked(4_000), clicked(40)
    assert (duel.look(), duel.evidence, duel.width) == (None, 0.0, None)
    found = duel_finding(duel_draft(), duel.score())
    assert (found.code, found.by) == ("one_clicks", pytest.approx(4_000 / 4_400))
    assert many.look() is not None
    assert many.score().heaviest is None


def test_who_decides_is_read_back_from_the_referees_file(tmp_path: Path) -> None:
    file, referee, again = tmp_path / "x.npz", played(3), type(played(3))()
    (watched,) = referee.look()
    watched.last.heaviest["ctr"] = {1: 0.5}
    save(file, referee, {}, {})
    load(file, again)
    assert again.watched[1].last.heaviest == watched.last.heaviest
