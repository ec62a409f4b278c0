"""Off-policy estimates: against recorded figures of another implementation, and against worlds whose truth is known."""

import numpy as np
import pytest

from scoring.offpolicy import (
    Logged,
    Weighted,
    doubts,
    effective_size,
    evaluate,
    fitted_means,
    switch_doubly_robust,
)
from scoring.ranking import first_chances, rank, slot_chances

CHOICES, ACTIONS = 60, 4
# What obp 0.4.1 (https://github.com/st-tech/zr-obp) prints for the choices below, switch-DR with tau = 2.
RECORDED = {
    "ips": 0.11621785269249071,
    "snips": 0.08614739982900715,
    "dm": 0.49465906986473523,
    "dr": -0.0532739625525104,
    "sndr": 0.08849938845961872,
}
RECORDED_SWITCH = 0.34980011549597273


def _choices() -> Logged:
    at, actions = np.arange(CHOICES), np.arange(ACTIONS)
    action = (at * 7 + 3) % ACTIONS
    behaviour = np.exp(np.stack([np.sin(at + one) for one in actions], axis=1))
    behaviour /= behaviour.sum(axis=1, keepdims=True)
    asked = np.exp(2 * np.cos(at[:, None] * 0.5 + actions))
    asked /= asked.sum(axis=1, keepdims=True)
    model = 0.5 + 0.4 * np.sin(at[:, None] * 0.3 + actions * 2)
    return Logged(
        reward=((at * at + action) % 5 == 0).astype(float),
        weight=asked[at, action] / behaviour[at, action],
        model_chosen=model[at, action],
        model_policy=(asked * model).sum(axis=1),
    )


def test_estimates_are_those_of_the_open_bandit_pipeline():
    found = evaluate(_choices())
    for name, value in RECORDED.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
    assert switch_doubly_robust(_choices(), 2.0).mean() == pytest.approx(RECORDED_SWITCH, abs=1e-9)


def test_a_policy_asked_about_itself_has_the_value_that_was_seen():
    reward = np.random.default_rng(1).random(500)
    log = Logged(reward, np.ones(500), np.zeros(500), np.zeros(500))
    for name in ("ips", "snips", "dr", "sndr", "switch_dr"):
        assert evaluate(log)[name].value == pytest.approx(reward.mean())
    assert effective_size(log.weight) == pytest.approx(500)
    assert not doubts(log)


def test_few_effective_choices_and_wrong_propensities_are_doubted():
    weight = np.zeros(1_000)
    weight[:3] = [800.0, 100.0, 100.0]
    found = doubts(Logged(np.zeros(1_000), weight, np.zeros(1_000), np.zeros(1_000)))
    assert any("effective sample size 2 of 1000" in doubt for doubt in found)
    assert any("80% of all weight" in doubt for doubt in found)
    assert any("mean weight 0.5" in doubt for doubt in doubts(Logged(*np.full((4, 300), 0.5))))


def test_intervals_cover_the_truth_as_often_as_they_say_where_people_come_again_and_again():
    draw, people, truth = np.random.default_rng(4), 200, 0.05
    covered: dict[str, list[bool]] = {"ips": [], "snips": [], "dr": [], "sndr": []}
    for _ in range(200):
        readiness = draw.beta(0.5, 9.5, people)  # who clicks clicks often
        person = draw.permutation(np.repeat(np.arange(people), draw.integers(1, 60, people)))
        reward = (draw.random(len(person)) < readiness[person]).astype(float)
        weight, model = draw.choice([0.5, 1.5], len(person)), np.full(len(person), 0.03)
        found = evaluate(Logged(reward, weight, model, model, person=person))
        for name, hits in covered.items():
            hits.append(found[name].low <= truth <= found[name].high)
    assert {name: np.mean(hits) >= 0.9 for name, hits in covered.items()} == dict.fromkeys(covered, True)


def test_choices_of_as_many_people_have_the_interval_of_independent_ones_though_each_made_theirs_again_and_again():
    log = _choices()
    columns = log.reward, log.weight, log.model_chosen, log.model_policy
    beside = Logged(*columns, person=np.arange(CHOICES)[::-1])
    thrice = Logged(*(np.tile(column, 3) for column in columns), person=np.tile(np.arange(CHOICES), 3))
    for name, estimate in evaluate(log).items():
        spreads = [evaluate(same)[name].standard_error for same in (beside, thrice)]
        assert spreads == pytest.approx([estimate.standard_error] * 2), name
    assert evaluate(log)["ips"].standard_error == pytest.approx((log.weight * log.reward).std(ddof=1) / CHOICES**0.5)


def test_a_log_of_one_person_or_without_any_reward_has_no_interval_and_is_doubted_in_words():
    clicks = np.random.default_rng(5).integers(0, 2, 1_000).astype(float)
    one = Weighted(clicks, np.ones(1_000), person=np.full(1_000, 7))
    nothing = Weighted(np.zeros(1_000), np.ones(1_000))
    for log in (one, nothing):
        assert all(np.isinf(estimate.high - estimate.low) for estimate in evaluate(log).values())
    assert any("choices of 1 person, by their weights 1.0 effective ones" in doubt for doubt in doubts(one))
    assert any("one person has 100% of all weight" in doubt for doubt in doubts(one))
    assert [doubt for doubt in doubts(nothing) if doubt.startswith("0.0 effective choices of 1000 earned anything")]


def _two_actions(seed: int, logged: float, asked: float, rewarded: float, choices: int = 20_000) -> Weighted:
    """A log whose policy took the second of two actions seldom, for one asked about that takes it often."""
    draw = np.random.default_rng(seed)
    weight = np.where(draw.random(choices) < logged, asked / logged, (1 - asked) / (1 - logged))
    return Weighted((draw.random(choices) < rewarded).astype(float), weight)


@pytest.mark.parametrize(
    ("logged", "asked", "rewarded", "few"),
    [(0.01, 0.5, 0.003, True), (0.02, 0.5, 0.005, True), (0.1, 0.7, 0.01, False), (0.5, 0.5, 0.003, False)],
)
def test_rewarded_choices_count_for_a_doubt_as_much_as_they_weigh(logged, asked, rewarded, few):
    for seed in range(20):
        log = _two_actions(seed, logged, asked, rewarded)
        assert np.count_nonzero(log.weight * log.reward) >= 20
        assert any("effective choices of 20000 earned anything" in doubt for doubt in doubts(log)) is few, seed
        spent = Weighted(log.reward * 12.5, log.weight)
        assert doubts(spent) == doubts(log), "what a choice earned is in no unit"


@pytest.mark.parametrize(("often", "passers_by", "few"), [(200, 50, True), (40, 0, False)])
def test_a_few_people_who_made_nearly_all_choices_count_as_few_whoever_else_passed_by(often, passers_by, few):
    heavy = 11 if passers_by else 61
    person = np.repeat(np.arange(61), [often] * heavy + [1] * (61 - heavy))
    draw = np.random.default_rng(8)
    log = Weighted((draw.random(len(person)) < 0.1).astype(float), draw.choice([0.5, 1.5], len(person)), person=person)
    assert any("choices of 61 people" in doubt for doubt in doubts(log)) is few


def test_thirty_people_are_enough_whatever_each_ones_choices_weigh():
    person, weight = np.repeat(np.arange(30), 40), np.tile(np.linspace(0.7, 1.3, 40), 30)
    assert not doubts(Weighted(np.ones(1_200), weight, person=person))


@pytest.mark.parametrize("each", [0.03, 31_415.9])  # of clicks, or of micros
def test_terms_that_are_all_the_same_tell_of_no_spread_though_their_mean_is_rounded(each: float) -> None:
    model, weight = np.full(1_000, each), np.random.default_rng(6).choice([0.5, 1.5], 1_000)
    assert model.mean() != each
    for person in (None, np.arange(1_000) // 3):
        assert np.isinf(evaluate(Logged(model, weight, model, model, person=person))["dm"].standard_error)


def test_a_choice_that_had_no_chance_is_refused():
    with pytest.raises(ValueError, match="propensity of 0"):
        Logged(np.ones(1), np.array([np.inf]), np.zeros(1), np.zeros(1))


def test_choices_that_are_none_or_told_of_in_part_or_weigh_less_than_nothing_are_refused():
    for told in ((3, 3, 2, 3), (3, 3, 3, 2), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match="expected one length, above 0"):
            Logged(*(np.ones(size) for size in told))
    with pytest.raises(ValueError, match="expected one length, above 0"):
        Weighted(np.ones(3), np.ones(3), person=np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="a weight is negative or infinite"):
        Weighted(np.ones(2), np.array([1.0, -0.5]))


def test_of_a_policy_that_never_chooses_what_was_logged_nothing_is_said():
    with pytest.raises(ValueError, match="nothing can be said of it from this log"):
        evaluate(Weighted(np.ones(3), np.zeros(3)))


@pytest.mark.parametrize("estimator", ["snips", "sndr"])
def test_a_normalised_estimate_is_as_uncertain_as_leaving_out_each_choice_tells_whatever_weights_sum_to(estimator):
    draw, count = np.random.default_rng(9), 400
    weight, model = draw.choice([0.5, 1.0, 6.0], count), draw.random(count)
    log = np.stack([model * weight / 3 + draw.random(count), weight, model, 1 - model + weight / 4])
    left_out = [evaluate(Logged(*np.delete(log, at, axis=1)))[estimator].value for at in range(count)]
    jackknife = np.std(left_out) * (count - 1) ** 0.5
    assert weight.mean() > 2
    assert evaluate(Logged(*log))[estimator].standard_error == pytest.approx(jackknife, rel=0.02)


def test_a_cross_fitted_mean_never_saw_the_choice_it_is_used_on():
    action, fold = np.zeros(10, dtype=np.int64), np.arange(10) % 2
    reward = (fold == 0).astype(float)  # all of fold 0 pays, nothing of fold 1 does
    means = fitted_means(action, reward, fold, actions=1)
    assert means[0, 0] == 0.0
    assert means[1, 0] == 1.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_logged_propensities_agree_with_how_often_each_ad_is_drawn(temperature):
    people, value = 200_000, np.array([1.0, 2.0, 4.0, 8.0, 3.0, 0.5])
    pctr = np.tile(value.astype(np.float32) / 10, (people, 1))
    bids = np.full((people, 6), 1_000_000)
    ads = np.tile(np.arange(1, 7, dtype=np.uint64), (people, 1))
    seeds = np.arange(1, people + 1, dtype=np.uint64)
    ranked = rank(pctr * bids, ads, seeds, np.full(people, temperature), slots=2)
    weight = value ** (1 / temperature)
    first = np.bincount(ranked.chosen[:, 0], minlength=6)
    assert _chi_square(first, people * weight / weight.sum()) < 20.52  # five free, p = 0.001
    second = 0.0
    for ad in range(6):  # given the first slot's ad, the second is drawn from the five others
        left = np.where(np.arange(6) == ad, 0.0, weight)
        among = ranked.chosen[:, 0] == ad
        drawn = np.bincount(ranked.chosen[among, 1], minlength=6)
        second += _chi_square(drawn[left > 0], among.sum() * left[left > 0] / left.sum())
        logged = (left / left.sum())[ranked.chosen[among, 1]]
        np.testing.assert_allclose(ranked.propensity[among, 1], logged, rtol=1e-5)
    assert second < 51.18  # six times four free, p = 0.001


def _chi_square(seen: np.ndarray, expected: np.ndarray) -> float:
    return float((((seen - expected) ** 2) / expected).sum())


def test_a_uniform_policys_value_is_recovered_from_another_ones_log():
    people, click_rate = 100_000, np.array([0.02, 0.05, 0.10, 0.20, 0.08])
    pctr = np.tile(click_rate.astype(np.float32), (people, 1))
    ads = np.tile(np.arange(1, 6, dtype=np.uint64), (people, 1))
    seeds = np.arange(1, people + 1, dtype=np.uint64)
    ranked = rank(pctr * 1_000_000.0, ads, seeds, np.full(people, 1.0), slots=1)
    clicked = np.random.default_rng(2).random(people) < click_rate[ranked.chosen[:, 0]]
    nothing = np.zeros(people)
    log = Logged(clicked.astype(float), 0.2 / ranked.propensity[:, 0], nothing, nothing)
    found = evaluate(log)
    assert found["ips"].low <= click_rate.mean() <= found["ips"].high
    assert found["snips"].low <= click_rate.mean() <= found["snips"].high
    assert found["ips"].high - found["ips"].low < 0.01
    assert clicked.mean() > click_rate.mean() + 0.02  # the log's own policy is another one


@pytest.mark.parametrize("temperature", [0.0, 0.7, np.inf])
def test_the_chances_of_recorded_slots_are_those_that_the_ranking_logs(temperature):
    value = np.array([[3.0, 1.0, 2.0, 5.0]])
    ads = np.arange(1, 5, dtype=np.uint64)[None]
    ranked = rank(value.astype(np.float32).astype(float), ads, np.ones(1, dtype=np.uint64),
                  np.array([temperature]), slots=3)  # fmt: skip
    np.testing.assert_allclose(slot_chances(value[0], ranked.chosen[0], temperature), ranked.propensity[0], rtol=1e-9)
    assert first_chances(value[0], temperature)[ranked.chosen[0, 0]] == pytest.approx(ranked.propensity[0, 0])


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "sndr"])
def test_an_estimates_standard_error_is_how_far_estimates_of_other_logs_lie_apart(estimator):
    found = []
    for seed in range(400):
        draw = np.random.default_rng(seed)
        weight = draw.choice([0.2, 0.6, 3.0], p=[0.4, 0.4, 0.2], size=500) / 0.92
        reward = 0.6 + 0.1 * weight + 0.2 * draw.random(500)  # far from 0, where weights that vary tell the most
        model = np.full(500, 0.2)
        found.append(evaluate(Logged(reward, weight, model, model))[estimator])
    apart = np.std([one.value for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(apart, rel=0.1)


def greedy(temperature: float, choices: int = 20_000, seed: int = 1) -> Logged:
    """What a shop without a temperature logs: the ad predicted best, with a propensity of 1. People click on it as is
    predicted, and on ads that never were shown far more often.
    """
    draw = np.random.default_rng(seed)
    pctr = np.sort(draw.lognormal(np.log(0.03), 1.0, (choices, 20)), axis=1)[:, ::-1].clip(0, 0.9)
    asked = np.stack([first_chances(row, temperature) for row in pctr])
    reward = (draw.random(choices) < pctr[:, 0]).astype(float)
    return Logged(reward, asked[:, 0], pctr[:, 0], (asked * pctr).sum(axis=1))


@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.15, 0.3])
def test_a_log_that_drew_nothing_is_doubted_where_the_policy_spreads_its_choice(temperature: float) -> None:
    (doubt,) = doubts(greedy(temperature))
    assert "this policy would show ads that the log never shows, so ips and snips cannot be believed" in doubt
    assert not doubts(greedy(0.0))


def test_a_mean_weight_that_is_surely_off_is_doubted_and_one_that_may_be_chance_is_not() -> None:
    weight = np.tile([0.5, 1.5], 5_000)
    person = np.repeat(np.arange(len(weight) // 50), 50)  # half of each one's choices have either weight
    for off, doubted in ((0.005, False), (0.02, True), (-0.02, True)):
        assert bool(doubts(Weighted(np.ones(len(weight)), weight + off))) is doubted, off
        assert bool(doubts(Weighted(np.ones(len(weight)), weight + off, person=person))) is doubted, off
    alike = np.repeat(weight[: len(weight) // 50], 50) + 0.02  # each one's are all of one: the mean may be chance
    assert not doubts(Weighted(np.ones(len(weight)), alike, person=person))
    (told,) = doubts(Weighted(np.ones(len(weight)), weight + 0.02))
    assert told == "mean weight 1.020; expected 1: propensities are wrong"
