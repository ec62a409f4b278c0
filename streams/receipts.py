"""Which placements leave a receipt, its JSON, and what cannot be one.

Most of the JSON is base64, which takes msgspec longer than all the rest of a message.
"""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Raw
from msgspec.structs import astuple
from pybase64 import b64encode

from scoring.ids import id64, uniform
from scoring.rows import LAYOUT_VERSION, ROW
from streams.wire import Decision, Interleaved, encode_json

_APART = np.uint64(id64("receipts"))
"""Keeps this draw apart from all others that a placement's id is the seed of: off-policy evaluation weighs by those."""

_Encoded = msgspec.defstruct("_Encoded", Decision.__struct_fields__, gc=False)
"""A `Decision` whose bytes are JSON already."""


def kept(placements: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which of ``placements [N]``, 64-bit ids of theirs, leave a receipt where a ``share`` of all do.

    The id alone decides, so that a slice that is done again leaves the same ones, and whoever looks for one knows.
    """
    return uniform(placements ^ _APART) < share


def encode_decision(decision: Decision) -> bytes:
    """What `encode_json` gives, in less time: pybase64 uses the processor's vector instructions."""
    return encode_json(_Encoded(*map(_encoded, astuple(decision))))


def _encoded(value: object) -> object:
    return Raw(b'"%b"' % b64encode(value)) if isinstance(value, bytes) else value


def check_receipt(told: Decision) -> None:
    """Raises `ValueError` with the field where a receipt cannot be one of this version's, nor of a former one's.

    What former versions wrote in other lengths (``row``, ``weights``, ``rates``) is left to who computes it again
    and knows by ``versions``, of which only the model is asked for here.
    """
    if "model" not in told.versions:
        raise ValueError(f"versions are of {', '.join(told.versions) or 'nothing'}; expected the model's among them")
    if not 0 <= told.seed < 2**64:
        raise ValueError(f"seed is {told.seed}; expected one of 64 bits")
    expected = ROW.itemsize
    if not told.row or (told.versions.get("layout") == str(LAYOUT_VERSION) and len(told.row) != expected):
        raise ValueError(f"row has {len(told.row)} bytes; expected {expected}")
    count, rest = divmod(len(told.candidates), 8)
    if rest:
        raise ValueError(f"candidates has {len(told.candidates)} bytes; expected 8 of each")
    _check_policy(told.policy)
    _check_chosen(told, count)
    _check_examined(told)
    _check_lengths(told, _OF_CANDIDATES, count)
    if told.other is not None:
        _check_lengths(told.other, _OF_OTHERS, count, "other.")
        if len(told.other.weights) != len(told.weights):
            raise ValueError(f"other.weights has {len(told.other.weights)} bytes; expected {len(told.weights)}")


_POLICY = (
    "slots", "candidates", "fresh_share", "random_share", "temperature", "control_share", "placement_ttl_ms"
)  # fmt: skip
"""Numbers that every receipt has had of its policy."""
SLOTS_MAX = 1_000
"""As many as a placement's slots have numbers."""
ROUNDING = 1e-9
"""By how much a chance that was summed up may exceed 1."""
_OF_OTHERS = {"pctr": ("f4", 1), "lifts": ("f4", 1), "evidence": ("f4", 1)}
_OF_CANDIDATES = _OF_OTHERS | {
    "revisions": ("u8", 1), "bids_micros": ("i8", 1), "offers": ("f4", 4), "worth": ("f4", 1), "fates": ("u1", 1),
    "spreads": ("f4", 1),
}  # fmt: skip
"""Arrays by name: their type, and how many numbers of each candidate."""
_MAY_BE_EMPTY = frozenset({"offers", "worth", "fates", "evidence", "spreads"})


def _check_policy(policy: Mapping[str, float]) -> None:
    if missing := [name for name in _POLICY if name not in policy]:
        raise ValueError(f"policy lacks {', '.join(missing)}")
    for name, number in policy.items():
        if not 0 <= number < math.inf:  # a NaN is not within any
            raise ValueError(f"policy's {name} is {number}; expected a number from 0 on")
    if not 1 <= policy["slots"] <= SLOTS_MAX:
        raise ValueError(f"policy's slots are {policy['slots']:g}; expected 1 to {SLOTS_MAX:,}")


def _check_chosen(told: Decision, count: int) -> None:
    if any(not 0 <= at < count for at in told.chosen):
        raise ValueError(f"chosen are {told.chosen}; expected places of {count} candidates")
    if len(told.propensities) != len(told.chosen):
        raise ValueError(f"propensities are {len(told.propensities)}; expected {len(told.chosen)}, one of each chosen")
    if any(not 0 < chance <= 1 + ROUNDING for chance in told.propensities):
        raise ValueError(f"propensities are {told.propensities}; expected chances above 0, at most 1")


def _check_examined(told: Decision) -> None:
    slots, rest = divmod(len(told.examined), 8)
    if rest or (told.examined and slots < len(told.chosen)):
        raise ValueError(f"examined has {len(told.examined)} bytes; expected 8 of each slot")
    if not np.isfinite(np.frombuffer(told.examined, dtype="f8")).all():
        raise ValueError("examined has numbers that are not finite")


def _check_lengths(
    told: Decision | Interleaved, arrays: Mapping[str, tuple[str, int]], count: int, where: str = ""
) -> None:
    """That each has as many numbers as there are candidates, none but finite ones."""
    for name, (kind, each) in arrays.items():
        content: bytes = getattr(told, name)
        expected = count * each * np.dtype(kind).itemsize
        if len(content) != expected and (content or name not in _MAY_BE_EMPTY):
            raise ValueError(f"{where}{name} has {len(content)} bytes; expected {expected}, of {count} candidates")
        if not np.isfinite(np.frombuffer(content, dtype=kind)).all():
            raise ValueError(f"{where}{name} has numbers that are not finite")
