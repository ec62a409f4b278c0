"""Ids are the same on every machine and in every process; draws from them look random and are functions."""

import numpy as np
import pytest
import xxhash

from scoring.ids import EMPTY, id64, id64s, mix64, uniform


@pytest.mark.parametrize(
    ("text", "value"),
    # XXH3's published value of the empty input, and values that stored rows and models were made with.
    [("", 0x2D06800538D394C2), ("user-1", 0x7C7615C11438E5C9), ("ad-0001", 0x35AC4123227BE85B)],
)
def test_an_id_is_the_same_for_ever(text: str, value: int) -> None:
    assert id64(text) == value


def test_text_and_its_bytes_have_one_id() -> None:
    assert id64("Müller") == id64("Müller".encode())
    assert id64s(["a", "b"]).tolist() == [id64("a"), id64("b")]
    assert id64s([]).dtype == np.uint64


def test_no_text_has_the_empty_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", lambda _: int(EMPTY))  # no text with this hash is known

    assert id64("whatever") == 1


def test_mixing_is_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 0 and 1234567 (Vigna's reference implementation).
    assert mix64(np.array([0, 1_234_567], dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


@pytest.mark.filterwarnings("error")
def test_draws_lie_strictly_between_0_and_1_at_the_ends_too() -> None:
    mixed_to_all_ones = 0x31628AF67B2131AB
    mixed_to_0 = 2**64 - 0x9E3779B97F4A7C15
    ends = np.array([mixed_to_0, mixed_to_all_ones], dtype=np.uint64)
    assert mix64(ends).tolist() == [0, 2**64 - 1]

    draws = uniform(ends)

    assert draws[0] > 0
    assert draws[1] < 1
    assert np.isfinite(-np.log(-np.log(draws))).all()  # as ranking's noise takes them


def test_draws_of_consecutive_ids_are_uniform() -> None:
    counts, _ = np.histogram(uniform(np.arange(100_000, dtype=np.uint64)), bins=20, range=(0, 1))

    chi_square = ((counts - 5_000) ** 2 / 5_000).sum()
    assert chi_square < 43.8  # 99.9 % of uniform samples stay below, with 19 degrees of freedom
