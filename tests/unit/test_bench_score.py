"""The measurements measure what they say, and the fast ways of choosing, ranking and explaining are the plain ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.attention import AttentionModel
from scoring.engine import CANDIDATES_PER_RUN, Engine
from scoring.ids import MISSING, id64s
from scoring.policies import Group, Policy
from scoring.ranking import rank
from scoring.rows import ROW_BYTES
from streams.placing import REASONS_MAX, _most_attended
from tests.bench import score, state
from tests.bench.goals import GOALS


def test_the_score_benchmark_reports_every_key_and_its_stages_add_up_to_the_whole() -> None:
    found = score.measure(quick=True, ads=800)

    ratios = ("overhead_ratio", "total_ratio_500", "placements_per_s_100", "placements_per_s_500")
    assert all(isinstance(found[name], int | float) and found[name] > 0 for name in ratios)  # type: ignore[operator] # just checked
    assert found["ads"] == 800
    assert {goal.at for goal in GOALS["score"]} <= found.keys()
    for count in (100, 500):
        stages = found[f"stages_us_{count}"]
        assert isinstance(stages, dict)
        whole_us = 1e6 / float(str(found[f"placements_per_s_{count}"]))
        assert sum(stages.values()) == pytest.approx(whole_us, rel=0.01)
        assert stages["onnx"] == found[f"onnx_us_{count}"]


def test_people_of_the_benchmark_have_a_full_past_that_the_shop_knows(model: AttentionModel) -> None:
    shop = score.shop_of(300, model)
    rows = score.people_of(shop, 4).rows[:4]

    assert (shop.slots_of(rows["ring_ad"]) != MISSING).all()
    assert rows["interest"].any(axis=(1, 2)).all()


def test_retrieval_finds_the_ads_that_the_plain_one_finds(model: AttentionModel) -> None:
    shop = score.shop_of(3_000, model)
    engine = Engine(shop, model, Policy())
    case = score.Case.of(engine, score.people_of(shop, 5))

    assert score.recall(shop, case.gather().interest, 100) > 0.95


def test_the_state_benchmark_counts_bytes_and_brings_every_user_back() -> None:
    found = state.measure(users=2_000)

    assert found["users"] == 2_000
    assert ROW_BYTES < float(str(found["bytes_per_user"])) < 2 * ROW_BYTES
    assert float(str(found["snapshot_bytes"])) > 2_000 * ROW_BYTES


def test_users_of_the_state_benchmark_are_all_different() -> None:
    keys = [key for names, _ in state.reads(50_000) for key in names]

    assert len(set(keys)) == len(keys) == 50_000
    assert {len(key) for key in keys} == {36}


@given(st.integers(0, 10**6))
def test_an_items_appearances_are_added_up_and_the_unknown_counts_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    history = rng.integers(MISSING, 8, (3, 12))
    attention = rng.random((3, 4, 12)).astype(np.float32)

    items, weights = (found.reshape(3, 4, -1) for found in _most_attended(history, attention))

    for person, slot in np.ndindex(3, 4):
        sums = {
            item: float(attention[person, slot, history[person] == item].sum())
            for item in set(history[person].tolist()) - {MISSING}
        }
        best = sorted(sums.items(), key=lambda pair: -pair[1])[:REASONS_MAX]
        known = weights[person, slot] > 0
        assert items[person, slot, known].tolist() == [item for item, _ in best]
        assert weights[person, slot, known].tolist() == pytest.approx([weight for _, weight in best], rel=1e-5)


def test_a_batch_scored_in_several_runs_of_the_model_is_each_person_scored_alone(model: AttentionModel) -> None:
    shop = score.shop_of(600, model)
    rows = score.people_of(shop, 20).rows[:20]
    ids, policy = id64s([f"user-{n}" for n in range(20)]), Policy(temperature=0.5)
    candidates = np.tile(np.arange(500), (20, 1))
    assert candidates.size > 2 * CANDIDATES_PER_RUN
    engine = Engine(shop, model, policy)

    group = Group(np.arange(20), policy)
    together = engine.score(rows, ids, ids, candidates, group)

    for person in (0, 7, 8, 19):
        one = slice(person, person + 1)
        alone = engine.score(rows[one], ids[one], ids[one], candidates[one], group)
        np.testing.assert_allclose(alone.asked.pctr[0], together.asked.pctr[person], atol=1e-6)
        assert alone.decided.chosen[0].tolist() == together.decided.chosen[person].tolist()
        np.testing.assert_allclose(alone.attention[0], together.attention[person], atol=1e-6)


def test_a_click_rate_that_is_no_number_is_an_error_and_not_a_placement() -> None:
    pctr = np.array([[0.1, np.nan]], dtype=np.float32)
    bids, ids = np.ones((1, 2), dtype=np.int64), id64s(["ad-1", "ad-2"])

    with pytest.raises(ValueError, match="not a number"):
        rank(pctr * bids, ids[None], ids[:1], np.zeros(1), 1)
