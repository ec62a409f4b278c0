"""What every interest estimator keeps: River's own checks, and the promises the engine builds on."""

import doctest
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import checks, compose, linear_model, preprocessing

import scoring.interest
from scoring.events import TIME_MS_MAX
from scoring.features import Content, feature_vector
from scoring.interest import HALF_LIVES_MS, WEIGHT_MAX, DecayedInterest
from scoring.rows import HORIZONS, ROW

pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'salience[checks]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'salience[checks]'")
pytestmark = pytest.mark.train

START_MS = 1_700_000_000_000

Make = Callable[[], DecayedInterest]
ESTIMATORS: dict[str, Make] = {
    "DecayedInterest": DecayedInterest,
    "DecayedInterest of one horizon": lambda: DecayedInterest(half_lives_ms=(60_000,)),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


def stream(examples: int = 60, seed: int = 7) -> list[dict[str, Any]]:
    """Examples with text, numbers, weights, times in and out of order, and features that come and go."""
    rng = np.random.default_rng(seed)
    out = []
    for place in range(examples):
        x: dict[str, Any] = {
            "category": f"shop/{rng.integers(5)}",
            "brand": f"brand-{rng.integers(7)}",
            "price": round(float(rng.uniform(0, 90)), 2),
            "time_ms": START_MS + place * 60_000 - int(rng.choice([0, 0, 3_600_000])),
            "weight": float(rng.choice([0.3, 1, 3, 0, 0])),
        }
        for name in list(x):
            if rng.random() < 0.2:
                del x[name]
        out.append(x)
    return out


def learned(make: Make) -> DecayedInterest:
    model = make()
    for x in stream():
        model.learn_one(x)
    return model


def state(model: DecayedInterest) -> bytes:
    return model.vectors.tobytes() + model.reference_ms.tobytes()


def river_checks() -> list[Any]:
    """River's checks by estimator; each gets an instance of its own."""
    return [
        pytest.param(make, check, id=f"{name}-{check.__name__}")
        for name, make in ESTIMATORS.items()
        for check in checks.yield_checks(make())
    ]


@pytest.mark.parametrize(("make", "check"), river_checks())
def test_it_passes_rivers_own_checks(make: Make, check: Callable[[Any], None]) -> None:
    check(make())


def test_river_has_checks_for_mini_batch_transformers() -> None:
    names = {check.__name__ for check in checks.yield_checks(DecayedInterest())}
    assert {"check_learn_many_matches_learn_one", "check_transform_many_matches_transform_one"} <= names


@every_estimator
def test_transforming_changes_neither_the_model_nor_the_example(make: Make) -> None:
    model, before = learned(make), state(learned(make))
    for x in stream(seed=8):
        copy = dict(x)
        model.transform_one(x)
        assert x == copy
    model.transform_many(pd.DataFrame(stream(seed=8)))
    assert state(model) == before


@every_estimator
def test_it_answers_before_it_has_learned(make: Make) -> None:
    assert set(make().transform_one({"category": "shoes", "time_ms": START_MS}).values()) == {0.0}
    assert set(make().transform_one({}).values()) == {0.0}


@every_estimator
def test_the_order_of_features_does_not_matter(make: Make) -> None:
    forward, backward = make(), make()
    for place, x in enumerate(stream()):
        many = {**x, **{f"number-{n}": 0.1 * (place + n) for n in range(20)}}
        forward.learn_one(many)
        backward.learn_one(dict(reversed(many.items())))
    assert state(forward) == state(backward)


@every_estimator
@pytest.mark.parametrize("size", [1e-3, 0.25, 1, 90, -5e5])
def test_a_number_of_any_size_counts_by_the_examples_weight_alone(make: Make, size: float) -> None:
    model = make()
    model.learn_one({"size": size, "time_ms": START_MS, "weight": 2})
    assert list(model.transform_one({"size": size}).values()) == pytest.approx([2] * len(model.half_lives_ms))


@every_estimator
@pytest.mark.parametrize(
    "x",
    [
        {},
        {"category": None},
        {"category": "shoes", "time_ms": None, "weight": None},
        {"price": float("nan"), "time_ms": float("inf"), "weight": float("-inf")},
        {"price": 1e300, "time_ms": -5, "weight": 1e300},
        {"category": "shoes", "time_ms": 1e300},
        {"price": -(10**400), "time_ms": 10**400, "weight": -(10**400)},
        {"category": ["not", "a", "scalar"], "time_ms": "yesterday", "weight": "much", 7: "seven"},
        {"category": "\x00" * 10_000},
    ],
)
def test_features_come_and_go_and_nonsense_leaves_the_interest_finite(make: Make, x: dict[Any, Any]) -> None:
    model = learned(make)
    model.transform_one(x)
    model.learn_one(x)
    assert np.isfinite(model.vectors).all()
    assert all(np.isfinite(value) for value in model.transform_one({"category": "shop/1"}).values())


@every_estimator
@pytest.mark.parametrize(
    ("x", "same"),
    [
        ({"weight": 1e9}, {"weight": WEIGHT_MAX}),
        ({"weight": -1e9}, {"weight": -WEIGHT_MAX}),
        ({"time_ms": -(10**12)}, {"time_ms": 0}),
        ({"time_ms": 10**18}, {"time_ms": TIME_MS_MAX}),
        ({"price": 1e9}, {"price": 1e6}),
        ({"price": -1e9}, {"price": -1e6}),
    ],
)
def test_what_is_beyond_a_bound_on_either_side_counts_as_the_bound(
    make: Make, x: dict[str, Any], same: dict[str, Any]
) -> None:
    one, other = make(), make()
    one.learn_one({"brand": "Arco", **x})
    other.learn_one({"brand": "Arco", **same})
    assert state(one) == state(other)


@every_estimator
def test_it_survives_pickling(make: Make) -> None:
    model = learned(make)
    again = pickle.loads(pickle.dumps(model))
    for x in stream(seed=9):
        assert again.transform_one(x) == model.transform_one(x)
        again.learn_one(x)
        model.learn_one(x)
    assert state(again) == state(model)


@every_estimator
def test_a_clone_has_the_parameters_and_none_of_the_interest(make: Make) -> None:
    model = learned(make)
    clone = model.clone()
    assert repr(clone) == repr(model)
    assert state(clone) == state(make())
    before = state(model)
    clone.learn_one({"category": "shoes", "time_ms": START_MS})
    assert state(model) == before


@every_estimator
def test_its_memory_does_not_grow(make: Make) -> None:
    model = make()
    model.learn_one(stream()[0])
    before = model._raw_memory_usage
    for number in range(2_000):
        model.learn_one({f"feature-{number}": f"value-{number}", "time_ms": START_MS + number})
    assert model._raw_memory_usage == before


@every_estimator
def test_one_by_one_many_at_once_and_arrays_learn_the_same(make: Make) -> None:
    examples = [{**x, "time_ms": START_MS + 1_000 * place, "weight": 1.0} for place, x in enumerate(stream())]
    one, many, arrays = make(), make(), make()
    for x in examples:
        one.learn_one(x)
    many.learn_many(pd.DataFrame(examples))
    arrays.learn_arrays(
        np.zeros(len(examples), dtype=np.int64),
        np.array([x["time_ms"] for x in examples]),
        np.ones(len(examples), dtype=np.float32),
        arrays._content(examples),
    )
    np.testing.assert_allclose(many.vectors, one.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(arrays.vectors, one.vectors, rtol=1e-5, atol=1e-5)
    assert many.reference_ms.tolist() == one.reference_ms.tolist() == arrays.reference_ms.tolist()


@every_estimator
def test_examples_with_gaps_learn_the_same_many_at_once(make: Make) -> None:
    one, many = learned(make), make()
    frame = pd.DataFrame(stream())
    many.learn_many(frame[:25])
    many.learn_many(frame[25:])
    np.testing.assert_allclose(many.vectors, one.vectors, rtol=1e-5, atol=1e-5)
    assert many.reference_ms.tolist() == one.reference_ms.tolist()


@every_estimator
def test_an_example_without_time_is_as_old_as_the_newest_one_that_counted(make: Make) -> None:
    examples = [
        {"brand": "a", "time_ms": START_MS, "weight": 1.0},
        {"brand": "b", "time_ms": START_MS + 60_000, "weight": 0.0},
        {"brand": "c", "weight": 1.0},
    ]
    one, many = make(), make()
    for x in examples:
        one.learn_one(x)
    many.learn_many(pd.DataFrame(examples))
    assert one.reference_ms.tolist() == many.reference_ms.tolist() == [START_MS]
    np.testing.assert_array_equal(many.vectors, one.vectors)


@every_estimator
def test_transform_many_keeps_the_index_and_says_what_transform_one_says(make: Make) -> None:
    model = learned(make)
    frame = pd.DataFrame(stream(seed=3), index=range(100, 160))
    many = model.transform_many(frame)
    assert list(many.index) == list(frame.index)
    for (_, row), x in zip(many.iterrows(), stream(seed=3), strict=True):
        assert row.to_dict() == pytest.approx(model.transform_one(x), abs=1e-6)


@every_estimator
def test_it_works_in_a_pipeline_and_by_user(make: Make) -> None:
    pipeline = make() | preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for place, x in enumerate(stream()):
        pipeline.predict_proba_one(x)
        pipeline.learn_one(x, place % 3 == 0)
    assert 0 < pipeline.predict_proba_one(stream()[0])[True] < 1

    by_user = compose.Grouper(make(), by="user")
    by_user.learn_one({"user": "ann", "category": "shoes", "time_ms": START_MS})
    asked = {"category": "shoes", "time_ms": START_MS}
    assert min(by_user.transform_one({"user": "ann", **asked}).values()) > 0
    assert set(by_user.transform_one({"user": "bob", **asked}).values()) == {0.0}


def test_bound_to_rows_it_learns_in_them() -> None:
    rows = np.zeros(5, dtype=ROW)
    bound = DecayedInterest.over(rows["interest"], rows["interest_ms"])
    features = np.eye(64, dtype=np.float32)[:3]
    times = np.array([START_MS, START_MS + 1, START_MS + 2])
    bound.learn_arrays(np.array([3, 1, 3]), times, np.array([1, 2, 3], dtype=np.float32), features)
    assert rows["interest_ms"].tolist() == [0, START_MS + 1, 0, START_MS + 2, 0]
    assert rows["interest"][3, 1].nonzero()[0].tolist() == [0, 2]
    assert rows["interest"][1, 0, 1] == 2
    assert not rows["interest"][[0, 2, 4]].any()
    read = bound.interest(np.array([1]), np.array([START_MS + 1 + HALF_LIVES_MS[0]]))
    assert read.shape == (1, HORIZONS, 64)
    assert read[0, 0, 1] == pytest.approx(1.0)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2, 64\) is what fits"):
        DecayedInterest.over(np.zeros((4, 3, 64), dtype=np.float32), np.zeros(4, dtype=np.int64))
    with pytest.raises(ValueError, match="half_lives_ms is"):
        DecayedInterest(half_lives_ms=(0,))


def test_the_estimator_and_the_engine_see_the_same_item() -> None:
    """A dictionary of what an item is gives the vector that the catalogue holds of it."""
    content = Content("ad-1", category="shoes", brand="Arco")
    model = DecayedInterest()
    model.learn_one({"category": "shoes", "brand": "Arco", "time_ms": START_MS})
    np.testing.assert_allclose(model.vectors[0, 0], feature_vector(content), atol=1e-6)


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(scoring.interest).attempted > 5
    assert doctest.testmod(scoring.interest).failed == 0
