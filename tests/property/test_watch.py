"""A detector's kept bytes are taken whole or refused: what is cut short or changed never reaches River's Rust."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.watch import Adwin, KeptError


def kept_detector() -> bytes:
    """One whose window holds a few hundred values, in several buckets."""
    adwin = Adwin()
    for value in np.random.default_rng(5).random(700).tolist():
        adwin.drifts(value)
    return adwin.kept()


KEPT = kept_detector()


def test_every_truncation_is_refused_by_name() -> None:
    for length in range(len(KEPT)):
        with pytest.raises(KeptError):
            Adwin.of(KEPT[:length])


@given(st.integers(0, len(KEPT) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused_by_name(place: int, difference: int) -> None:
    changed = bytearray(KEPT)
    changed[place] ^= difference
    with pytest.raises(KeptError):
        Adwin.of(bytes(changed))


@given(st.binary(min_size=1, max_size=200))
def test_other_bytes_and_bytes_too_many_are_refused_by_name(noise: bytes) -> None:
    for kept in (noise, KEPT + noise):
        with pytest.raises(KeptError):
            Adwin.of(kept)


def test_what_is_whole_is_taken() -> None:
    assert Adwin.of(KEPT).kept() == KEPT
