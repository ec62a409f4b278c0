"""Prices that an event can only repeat: a keyed hash of placement, ad, price and what the price is for.

Whoever shows an ad sends the price back with the seal that came with it; a price that is not the placement's own has
another seal. SipHash-1-3 (Aumasson & Bernstein 2012) of a 23-byte message, for arrays; without state, so that any
worker can check what any other has sold.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scoring.arrays import Ids, Ints

PRICE_BITS = 48
"""Of the message's last word: a price is below 2.8 × 10¹⁴ micros; the bid's type stands above it, the length on top."""
_LENGTH = np.uint64(23 << 56)
_START = tuple(np.uint64(word) for word in (
    0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573,
))  # fmt: skip
_TURNS = tuple((np.uint64(bits), np.uint64(64 - bits)) for bits in (13, 32, 16, 21, 17, 32))


@dataclass(frozen=True)
class Seal:
    """A key, 16 bytes. The empty secret's seals catch mistakes; against intent, a secret of one's own is needed."""

    key: bytes = field(default_factory=lambda: _digest(""), repr=False)

    @classmethod
    def of(cls, secret: str) -> "Seal":
        """The key that ``secret`` gives."""
        return cls(_digest(secret))

    @property
    def version(self) -> str:
        """Tells one key from another without telling it."""
        return hashlib.blake2b(self.key, digest_size=4, person=b"salience-version").hexdigest()

    def tags(self, placements: Ids, ads: Ids, prices_micros: Ints, bid_types: npt.NDArray[np.uint8]) -> Ids:
        """Seals ``[N]`` of ``prices_micros [N]``; ``placements [N]`` and ``ads [N]`` are 64-bit ids."""
        last = prices_micros.astype(np.uint64) | (bid_types.astype(np.uint64) << np.uint64(PRICE_BITS)) | _LENGTH
        low, high = (np.uint64(int.from_bytes(self.key[at : at + 8], "little")) for at in (0, 8))
        state = [np.full(len(ads), word ^ half) for word, half in zip(_START, (low, high, low, high), strict=True)]
        with np.errstate(over="ignore"):
            for word in (placements, ads, last):
                state[3] = state[3] ^ word
                _round(state)
                state[0] = state[0] ^ word
            state[2] = state[2] ^ np.uint64(0xFF)
            for _ in range(3):
                _round(state)
        tag: Ids = state[0] ^ state[1] ^ state[2] ^ state[3]
        return tag


def _round(state: list[Ids]) -> None:
    """SipRound, in place."""
    v0, v1, v2, v3 = state
    v0 = v0 + v1
    v1 = _turned(v1, 0) ^ v0
    v0 = _turned(v0, 1)
    v2 = v2 + v3
    v3 = _turned(v3, 2) ^ v2
    v0 = v0 + v3
    v3 = _turned(v3, 3) ^ v0
    v2 = v2 + v1
    v1 = _turned(v1, 4) ^ v2
    v2 = _turned(v2, 5)
    state[:] = v0, v1, v2, v3


def _turned(word: Ids, turn: int) -> Ids:
    left, right = _TURNS[turn]
    turned: Ids = (word << left) | (word >> right)
    return turned


def _digest(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=16, person=b"salience-seal/1").digest()
