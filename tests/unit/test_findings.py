"""What an experiment shows: one code for each case, and the sentence that it makes."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.interleaving import Preference, Score
from scoring.trial import SUMS, Difference, Look, Trial
from streams.cli.experiment_report import show
from streams.control_wire import ExperimentSetting, Guardrail
from streams.experiments.findings import SENTENCES, Finding, duel_finding, trial_finding
from streams.experiments.registry import start, stop
from streams.experiments.report import breached, decode_report, duel_report, encode_report, report
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import running

NAN = float("nan")


def between(low: float, high: float, relative: float = 0.25) -> Difference:
    value = (low + high) / 2
    return Difference(value=value, low=low, high=high, relative=relative, p_value=0.5, variance_cut=0.0)


def look(*against: Difference | None, split_p_value: float = 1.0, heaviest: dict[int, float] | None = None) -> Look:
    """Arms beside the first, None where there is too little of one."""
    found = {at: one for at, one in enumerate(against, 1) if one is not None}
    arms = 1 + len(against)
    nothing = {"ctr": [0.0] * arms}
    return Look(
        np.zeros(arms, dtype=np.int64), 0, split_p_value, nothing, nothing, {"ctr": found}, {"ctr": heaviest or {}}
    )


def of_arms(*names: str) -> ExperimentSetting:
    """A running experiment of these arms."""
    setting = running()
    arms = tuple(type(setting.arms[0])(arm=name, share=1 / len(names)) for name in names)
    return type(setting)(**{name: getattr(setting, name) for name in setting.__struct_fields__} | {"arms": arms})


def score(preference: Preference | None, heaviest: float | None = None) -> Score:
    """A duel's moment."""
    return Score(100, (60.0, 40.0), preference, heaviest)


WORSE, OPEN, BETTER, BEST = between(-0.3, -0.1), between(-0.1, 0.2), between(0.1, 0.2), between(0.3, 0.5, 0.75)
TRIALS = {
    "too_little": (look(None, None), "too little yet"),
    "open": (look(OPEN, None), "no difference is certain yet"),
    "better": (look(BETTER, BEST), "c is better by 75.0% in ctr"),
    "worse": (look(WORSE, OPEN), "b is worse than a in ctr; the others are open"),
    "first_is_better": (look(WORSE, WORSE), "a is better than every other arm in ctr"),
    "one_decides": (
        look(None, None, heaviest={0: 0.2, 2: 0.9}),
        "one person made 90.0% of c's impressions (10% at most): probably a bot or a page that reloads",
    ),
    "unequal_shares": (look(BEST, BEST, split_p_value=0.0009), "the arms do not have their shares of the users"),
}
DUELS = {
    "too_few_clicks": (score(None), "too few people have clicked yet"),
    "neither_preferred": (score(Preference(0.1, -0.1, 0.3, 0.5)), "neither ranking is surely preferred yet"),
    "preferred": (
        score(Preference(-0.2, -0.3, -0.1, 0.0)),
        "as-is is preferred: its picks win 60.0% of the clicks",
    ),
    "one_clicks": (
        score(None, 0.4),
        "one person made 40.0% of the clicks (10% at most): probably a bot or a page that reloads",
    ),
}


@pytest.mark.parametrize("code", TRIALS)
def test_a_trial_has_one_finding_and_its_sentence(code: str) -> None:
    seen, sentence = TRIALS[code]
    found = trial_finding(of_arms("a", "b", "c"), seen)
    assert (found.code, found.metric, found.first) == (code, "ctr", "a")
    assert found.sentence.startswith(sentence)


def test_what_is_known_of_one_arm_is_told_though_one_person_decides_another() -> None:
    for arms, code in (((OPEN, None), "open"), ((None, BETTER), "better"), ((WORSE, None), "worse")):
        assert trial_finding(of_arms("a", "b", "c"), look(*arms, heaviest={1: 0.3, 2: 0.9})).code == code


@pytest.mark.parametrize("code", DUELS)
def test_a_duel_has_one_finding_and_its_sentence(code: str) -> None:
    seen, sentence = DUELS[code]
    found = duel_finding(duel_draft(), seen)
    assert (found.code, found.metric) == (code, "preference")
    assert found.sentence == sentence


def test_whichever_ranking_wins_more_clicks_is_the_one_preferred() -> None:
    found = duel_finding(duel_draft(), score(Preference(0.2, 0.1, 0.3, 0.0)))
    assert (found.arms, found.by) == (("warmer",), pytest.approx(0.6))


def test_an_interval_that_ends_at_zero_is_certain_of_nothing() -> None:
    assert trial_finding(of_arms("a", "b", "c"), look(between(0.0, 0.2), between(-0.2, 0.0))).code == "open"
    for value, low, high in ((0.1, 0.0, 0.2), (-0.1, -0.2, 0.0)):
        assert duel_finding(duel_draft(), score(Preference(value, low, high, 0.5))).code == "neither_preferred"


def test_an_end_is_told_before_what_was_seen_and_cases_and_sentences_are_the_same() -> None:
    stopped = stop(of_arms("a", "b"), "enough seen", 9)
    for found in (trial_finding(stopped, look(BEST)), duel_finding(stopped, score(None))):
        assert (found.code, found.sentence) == ("stopped", "stopped: enough seen")
    assert SENTENCES.keys() == {"stopped", *TRIALS, *DUELS}


def test_the_guide_names_every_code() -> None:
    guide = (Path(__file__).parents[2] / "deploy" / "EXPERIMENTS.md").read_text()
    assert {code for code in SENTENCES if f"`{code}`" not in guide} == set()


def test_what_is_better_than_nothing_is_told_by_how_much_and_not_by_what_share() -> None:
    found = trial_finding(of_arms("a", "b"), look(between(0.1, 0.2, NAN)))
    assert (found.by, found.relative) == (pytest.approx(0.15), False)
    assert found.sentence == "b is better by 0.15 in ctr (ctr less a's: b +0.1 to +0.2)"


def test_an_arms_name_is_told_as_it_is() -> None:
    assert Finding(code="better", first="a", metric="ctr", arms=("{b}",), by=0.1).sentence.startswith("{b} is better")


def test_of_an_experiment_that_was_stopped_without_a_reason_it_is_found_that_it_is_over() -> None:
    stopped = stop(of_arms("a", "b"), "", 9)
    for found in (trial_finding(stopped, look(BEST)), duel_finding(stopped, score(None))):
        assert (found.code, found.reason, found.sentence) == ("stopped", "", "stopped: no reason given")


def told(
    users: int, clicked: int, *, impressions: bool = True, arms: tuple[float, float] = (0.5, 0.5), turns: int = 2
) -> str:
    """What is told of two arms, of which every so many-th user has the second; the first so many pairs clicked once."""
    trial, totals = Trial(np.array(arms)), np.zeros((users, len(SUMS)))
    trial.expose(np.arange(users), (np.arange(users) % turns == turns - 1).astype(int), totals.copy())
    totals[:, SUMS.index("impressions")] = 10 * impressions
    totals[: 2 * clicked, SUMS.index("clicks")] = 1
    return trial_finding(running(), trial.look(totals)).sentence


def test_what_is_too_little_is_told_by_how_many_of_how_many() -> None:
    assert told(128, 20) == "too little yet (as-is has 64 of 100 users)"
    assert told(400, 20, impressions=False) == "too little yet (as-is has 0 of 10 users who saw an ad)"
    assert told(400, 3) == "too little yet (as-is has 3 of 5 users who clicked)"
    assert told(400, 0) == "too little yet (as-is has 0 of 5 users who clicked)"
    assert told(400, 20, arms=(0.8, 0.2), turns=5) == "too little yet (warmer has 80 of 100 users)"


def test_what_is_open_is_told_with_how_much_it_may_still_be() -> None:
    assert re.fullmatch(
        r"no difference is certain yet \(ctr less as-is's: warmer -0\.\d+ to \+0\.\d+\)", told(4_000, 500)
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (look(BETTER, BEST), "c is better by 75.0% in ctr (ctr less a's: b +0.1 to +0.2, c +0.3 to +0.5)"),
        (look(BETTER, None), "b is better by 25.0% in ctr (ctr less a's: b +0.1 to +0.2, c not compared yet)"),
        (
            look(WORSE, None),
            "b is worse than a in ctr; the others are open (ctr less a's: b -0.3 to -0.1, c not compared yet)",
        ),
        (look(None, OPEN), "no difference is certain yet (ctr less a's: c -0.1 to +0.2, b not compared yet)"),
        (
            look(WORSE, WORSE),
            "a is better than every other arm in ctr (ctr less a's: b -0.3 to -0.1, c -0.3 to -0.1)",
        ),
    ],
)
def test_what_is_certain_is_told_with_how_much_it_surely_is_and_of_whom_nothing_is_known(
    seen: Look, words: str
) -> None:
    assert trial_finding(of_arms("a", "b", "c"), seen).sentence == words


def test_a_split_that_is_broken_is_told_with_the_users_of_each_arm_and_how_many_were_meant() -> None:
    assert told(4_000, 100, arms=(0.75, 0.25)) == (
        "the arms do not have their shares of the users: find out why before believing anything here "
        "(as-is has 2,000 users of 3,000 meant, warmer has 2,000 users of 1,000 meant; "
        "likely crashes, bots, redirects or refusals in one arm)"
    )


def test_a_rate_of_nothing_is_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    trial, totals = Trial(np.array([0.5, 0.5])), np.zeros((200, len(SUMS)))
    trial.expose(np.arange(200), np.arange(200) % 2, totals.copy())
    totals[::2, SUMS.index("impressions")] = 10
    made = decode_report(encode_report(report(running(), trial.look(totals), 9)))
    assert [(arm.metrics["ctr"], arm.metrics["cvr"]) for arm in made.arms] == [(0.0, None), (None, None)]
    show(made)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cvr"))
    assert line.split() == ["cvr", "as-is", "–"]
    nobody = duel_report(start(duel_draft(), 1.0, 2), Score(0, (0.0, 0.0), None), 9)
    assert [arm.metrics["preference"] for arm in nobody.arms] == [None, None]


@pytest.mark.parametrize(
    ("first", "against", "why"),
    [
        (0.5, [between(-0.5, -0.125), None], "guardrail cvr: b loses 62.5%, surely more than 20.0%"),
        (0.5, [None, between(-0.5, -0.125)], "guardrail cvr: c loses 62.5%, surely more than 20.0%"),
        (0.5, [between(-0.5, -0.0625), between(0.0, 0.1)], None),
        (0.0, [between(-0.5, -0.125), None], None),
    ],
    ids=["second", "third", "not surely", "of nothing"],
)
def test_a_guardrail_is_broken_by_who_surely_loses_more_of_its_own_metric_than_it_allows_whatever_is_judged(
    first: float, against: list[Difference | None], why: str | None
) -> None:
    rail, seen = Guardrail(metric="cvr", most_loss=0.2), look(BETTER, BETTER)
    setting = msgspec.structs.replace(of_arms("a", "b", "c"), guardrails=(rail,))
    values, differences = {"ctr": [0.05] * 3, "cvr": [first, 0.1, 0.1]}, {"cvr": look(*against).differences["ctr"]}
    assert setting.primary == "ctr"
    assert breached(setting, replace(seen, values=values, differences=seen.differences | differences)) == why
