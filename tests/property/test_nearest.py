"""The nearest ads, looked for a few at a time, are those of a whole sort of all products."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.arrays import Ints, Singles
from scoring.candidates import nearest


def values_of(rng: np.random.Generator, ads: int, people: int, different: int, *, apart: bool) -> Singles:
    """Products ``[ads, people]`` of so many ``different`` values, wide ``apart`` or next to each other."""
    numbers = rng.integers(-different, different + 1, (ads, people))
    if apart:
        return (numbers / 7).astype(np.float32)
    return (1 + numbers * np.finfo(np.float32).eps).astype(np.float32)


def sorted_out(values: Singles, marked: Ints, count: int) -> Ints:
    """The plain definition: the first ``count`` by product, the marked before all others, of equals the first."""
    values = values.copy()
    values[marked, np.arange(len(marked))[:, None]] = np.inf
    return np.sort(np.argsort(-values, axis=0, kind="stable")[:count].T, axis=1)


@given(
    ads=st.integers(1, 300),
    people=st.integers(1, 5),
    different=st.sampled_from([0, 1, 3, 10**6]),
    apart=st.booleans(),
    order=st.sampled_from([0, 1, -1]),
    together=st.integers(1, 2_000),
    marks=st.sampled_from([0, 0.2, 1.2]),
    seed=st.integers(0, 10**6),
)
def test_the_nearest_are_those_of_a_whole_sort_of_equals_the_first(
    ads: int, people: int, different: int, apart: bool, order: int, together: int, marks: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = values_of(rng, ads, people, different, apart=apart)
    if order:
        values = np.sort(values, axis=0)[::order]
    count = 1 + int((ads - 1) * rng.random() ** 3)  # mostly a small part of them
    marked = rng.integers(ads, size=(people, round(marks * count)))

    found = nearest(values, np.eye(people, dtype=np.float32), marked, count, together=together)

    assert found.tolist() == sorted_out(values, marked, count).tolist()


def test_where_nobody_likes_any_ad_only_ads_that_there_are_are_found() -> None:
    for ads in range(16, 100):  # in blocks of two and more, of which the last is not always full
        values = -1 - np.random.default_rng(ads).random((ads, 2), dtype=np.float32)
        found = nearest(values, np.eye(2, dtype=np.float32), np.zeros((2, 0), dtype=np.int64), 2)
        assert found.tolist() == sorted_out(values, np.zeros((2, 0), dtype=np.int64), 2).tolist()


def test_many_people_and_ads_of_whom_many_are_alike_find_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    ads = rng.integers(-2, 3, (9_000, 6)).astype(np.float32)
    people = rng.integers(-2, 3, (70, 6)).astype(np.float32)
    people[::7] = 0
    marked = rng.integers(len(ads), size=(len(people), 7))

    found = nearest(ads, people, marked, 60, together=100_000)

    assert found.tolist() == sorted_out(ads @ people.T, marked, 60).tolist()


def test_an_ad_a_hair_nearer_is_found_beside_a_person_who_likes_every_ad_more_than_those_before() -> None:
    count, step, nearer = 8, 72, 2 * 72 + 39  # beside one of the first that are equal
    values = np.zeros((3 * step, 2), dtype=np.float32)
    values[:, 1] = np.arange(1, len(values) + 1)  # so that what they want of an ad is raised again and again
    values[:count, 0] = 1
    values[nearer, 0] = np.nextafter(np.float32(1), np.float32(2))
    nobody = np.zeros((2, 0), dtype=np.int64)

    found = nearest(values, np.eye(2, dtype=np.float32), nobody, count, together=2 * step)

    assert found[0].tolist() == [*range(count - 1), nearer]


def most_memory(ads: int, count: int) -> int:
    """Bytes that looking for the nearest to 128 people takes at most."""
    rng = np.random.default_rng(2)
    values, people = (rng.normal(size=(size, 4)).astype(np.float32) for size in (ads, 128))
    tracemalloc.start()
    try:
        nearest(values, people, rng.integers(ads, size=(128, count // 10)), count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_ads() -> None:
    assert most_memory(40_000, 100) < 10e6
    assert most_memory(160_000, 100) < 10e6
    assert most_memory(160_000, 500) < 20e6
