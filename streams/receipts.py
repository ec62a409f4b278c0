"""Which placements leave a receipt; the encoding of receipts, and their validation.

Most of the JSON is base64, which takes msgspec longer than all the rest of a message.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Raw
from msgspec.structs import astuple
from pybase64 import b64encode

from scoring.arrays import Bools, Floats, Ids
from scoring.ids import id64, uniform
from scoring.market import Fate
from scoring.rows import LAYOUT_VERSION, ROW
from streams.wire import Decision, Interleaved, encode_json

_APART = np.uint64(id64("receipts"))
"""Makes this draw independent of all others seeded by a placement's id: off-policy evaluation weighs by those."""

_Encoded = msgspec.defstruct("_Encoded", Decision.__struct_fields__, gc=False)
"""A `Decision` whose bytes are JSON already."""


def kept(placements: Ids, share: float) -> Bools:
    """Whether each of ``placements [N]``, 64-bit ids, leaves a receipt, if a ``share`` of all do.

    The id alone decides. So a slice that is run again leaves the same receipts, and a reader knows which to expect.
    """
    return uniform(placements ^ _APART) < share


def encode_decision(decision: Decision) -> bytes:
    """The same as `encode_json`, but faster: pybase64 uses the processor's vector instructions."""
    return encode_json(_Encoded(*map(_encoded, astuple(decision))))


def _encoded(value: object) -> object:
    return Raw(b'"%b"' % b64encode(value)) if isinstance(value, bytes) else value


def worth_of(told: Decision) -> Floats:
    """What each candidate was worth, ``[C]`` micros of an impression: bid times pCTR where the receipt says no more."""
    if told.worth:
        return np.frombuffer(told.worth, dtype="<f4").astype(np.float64)
    return np.frombuffer(told.bids_micros, dtype="<i8") * np.frombuffer(told.pctr, dtype="<f4").astype(np.float64)


def fates_of(told: Decision) -> npt.NDArray[np.uint8]:
    """What became of each candidate, ``[C]`` of `Fate`; receipts of former versions tell only who won."""
    if told.fates:
        return np.frombuffer(told.fates, dtype=np.uint8)
    fates = np.full(len(told.candidates) // 8, Fate.OUTBID, dtype=np.uint8)
    fates[list(told.chosen)] = Fate.WON
    return fates


def may_be_shown(fates: npt.NDArray[np.uint8]) -> Bools:
    """Whether the rules left each candidate in, ``[C]``; one that a slot shuts out for the slots below it counts."""
    return np.isin(fates, (Fate.OUTBID, Fate.KEPT_APART)) | (fates >= Fate.WON)


def check_receipt(told: Decision) -> None:
    """Raises `ValueError` with the field where a receipt can be neither of this version nor of a former one.

    Former versions wrote ``row``, ``weights`` and ``rates`` in other lengths. `streams.explain` checks those by
    ``versions``, of which only the model's must be there here.
    """
    if "model" not in told.versions:
        raise ValueError(f"versions are of {', '.join(told.versions) or 'nothing'}; expected the model's among them")
    if not 0 <= told.seed < 2**64:
        raise ValueError(f"seed is {told.seed}; expected one of 64 bits")
    expected = ROW.itemsize
    if not told.row or (told.versions.get("layout") == str(LAYOUT_VERSION) and len(told.row) != expected):
        raise ValueError(f"row has {len(told.row)} bytes; expected {expected}")
    count, rest = divmod(len(told.candidates), 8)
    if rest or not count:
        raise ValueError(f"candidates has {len(told.candidates)} bytes; expected 8 of each, one at least")
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
"""Numbers of the policy that receipts of every version have."""
SLOTS_MAX = 1_000
"""Most slots of a placement: as many as there are slot numbers."""
NUMBER_MAX = 2**53
"""Largest number of a policy: more than any setting takes, and what a time in ms can be added to in 64 bits."""
ROUNDING = 1e-9
"""By how much a summed probability may exceed 1."""
_OF_OTHERS = {"pctr": ("f4", 1), "lifts": ("f4", 1), "evidence": ("f4", 1)}
_OF_CANDIDATES = _OF_OTHERS | {
    "revisions": ("u8", 1), "bids_micros": ("i8", 1), "offers": ("f4", 4), "worth": ("f4", 1), "fates": ("u1", 1),
    "spreads": ("f4", 1),
}  # fmt: skip
"""Arrays by name: their type, and how many numbers they hold per candidate."""
_MAY_BE_EMPTY = frozenset({"offers", "worth", "fates", "evidence", "spreads"})


def _check_policy(policy: Mapping[str, float]) -> None:
    if missing := [name for name in _POLICY if name not in policy]:
        raise ValueError(f"policy lacks {', '.join(missing)}")
    for name, number in policy.items():
        if not 0 <= number <= NUMBER_MAX:  # also refuses NaN
            raise ValueError(f"policy's {name} is {number}; expected a number from 0 to {NUMBER_MAX:,}")
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
    """Check that each array has its numbers for every candidate, and that all are finite."""
    for name, (kind, each) in arrays.items():
        content: bytes = getattr(told, name)
        expected = count * each * np.dtype(kind).itemsize
        if len(content) != expected and (content or name not in _MAY_BE_EMPTY):
            raise ValueError(f"{where}{name} has {len(content)} bytes; expected {expected}, of {count} candidates")
        if not np.isfinite(np.frombuffer(content, dtype=kind)).all():
            raise ValueError(f"{where}{name} has numbers that are not finite")
