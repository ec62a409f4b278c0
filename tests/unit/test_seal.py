"""Seals: SipHash as published, and a price that is not the placement's own is caught."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.ids import id64s
from scoring.seal import PRICE_BITS, Seal

MASK = 2**64 - 1


def siphash(key: bytes, message: bytes, compress: int, finish: int) -> int:
    """By the paper's own words, one word after the other."""

    def turned(word: int, bits: int) -> int:
        return ((word << bits) | (word >> (64 - bits))) & MASK

    def rounds(v: list[int], count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1], v[3] = turned(v[1], 13) ^ v[0], turned(v[3], 16) ^ v[2]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[1]) & MASK
            v[0] = (v[0] + v[3]) & MASK
            v[1], v[3] = turned(v[1], 17) ^ v[2], turned(v[3], 21) ^ v[0]
            v[2] = turned(v[2], 32)

    low, high = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D, low ^ 0x6C7967656E657261, high ^ 0x7465646279746573]
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(v, compress)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(v, finish)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_gives_the_papers_own_example() -> None:
    assert siphash(bytes(range(16)), bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5


@given(st.binary(min_size=16, max_size=16), st.integers(0, MASK), st.integers(0, MASK),
       st.integers(0, 2**PRICE_BITS - 1), st.integers(0, 3))  # fmt: skip
def test_a_seal_is_the_siphash_of_placement_ad_price_and_type(
    key: bytes, placement: int, ad: int, price: int, kind: int
) -> None:
    message = (
        placement.to_bytes(8, "little") + ad.to_bytes(8, "little") + (price | kind << PRICE_BITS).to_bytes(7, "little")
    )
    two = np.array([placement, 1], dtype=np.uint64), np.array([ad, 2], dtype=np.uint64)

    tags = Seal(key).tags(*two, np.array([price, 3]), np.array([kind, 0], dtype=np.uint8))

    assert int(tags[0]) == siphash(key, message, 1, 3)


def test_another_price_ad_placement_type_or_key_has_another_seal() -> None:
    def tag(secret: str = "s", placement: str = "p", ad: str = "a", price: int = 7, kind: int = 0) -> int:
        ids = id64s([placement]), id64s([ad])
        return int(Seal.of(secret).tags(*ids, np.array([price]), np.array([kind], dtype=np.uint8))[0])

    others = {tag("t"), tag(placement="q"), tag(ad="b"), tag(price=8), tag(kind=1)}
    assert tag() not in others
    assert len(others) == 5
    assert tag() == tag()


def test_a_seal_tells_its_key_from_others_without_telling_it() -> None:
    assert Seal.of("a").version != Seal.of("b").version
    assert Seal.of("a").version == Seal.of("a").version
    assert Seal.of("a").key.hex() not in repr(Seal.of("a"))


def test_a_secret_gives_the_same_seals_in_every_version_so_that_what_was_sold_before_an_update_is_paid() -> None:
    ids, prices, kinds = (id64s(["p", "q"]), id64s(["a", "b"])), np.array([7, 0]), np.array([0, 2], dtype=np.uint8)
    for seal, version, tags in (
        (Seal(), "8ff8b746", [0x04F4FE8A6EE05D11, 0x0ED90BC7C5526E0D]),
        (Seal.of("salt"), "71fee06a", [0xF1CA071CBB65E761, 0x900B4910971C2EB2]),
    ):
        assert seal.version == version
        assert seal.tags(*ids, prices, kinds).tolist() == tags
