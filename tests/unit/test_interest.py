"""Interest as a River estimator, where there is nothing to learn."""

import pytest

from scoring.interest import DecayedInterest

pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'salience[checks]'")
pytestmark = pytest.mark.train


def test_a_mini_batch_without_examples_teaches_nothing_and_has_a_column_per_horizon() -> None:
    interest, shoes = DecayedInterest(half_lives_ms=(1_800_000, 604_800_000)), {"category": "shoes", "time_ms": 5}
    interest.learn_one(shoes)
    before = interest.transform_one(shoes)

    for empty in (pd.DataFrame([shoes])[:0], pd.DataFrame()):
        interest.learn_many(empty)
        told = interest.transform_many(empty)
        assert (len(told), [*told.columns]) == (0, [*before])
    assert interest.transform_one(shoes) == before
