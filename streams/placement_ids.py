"""Placement ids: the lane, offsets and user that each was made from; experiment tags follow after a dot.

A receipt's header tells how far its slice had read, in the same form: by both, a receipt is found from an id.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from scoring.arrays import Bools
from scoring.ids import id64, id64s
from streams.message import Headers


def placement_id(lane: int, user: bytes, offsets: tuple[int, int]) -> str:
    """The id of the placement that follows from the user's events up to ``offsets``: the same each time it is made."""
    return f"{lane:x}-{offsets[0] + 1:x}-{offsets[1] + 1:x}-{id64(user):016x}"


SLICE_END = "salience.slice-end"
"""Name of a receipt's header."""


def slice_end(next_offsets: tuple[int, int]) -> Headers:
    """The header: how far a slice has read the lane's impressions and clicks, as the offsets that come next, in hex."""
    return ((SLICE_END, b"%x-%x" % next_offsets),)


def slice_end_of(headers: Iterable[tuple[str, bytes | None]]) -> tuple[int, int] | None:
    """How far the slice of a receipt with these headers had read; None where no header tells."""
    for name, value in headers:
        if name == SLICE_END and (parts := re.fullmatch(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16})", value or b"")):
            return int(parts[1], 16), int(parts[2], 16)
    return None


class Origin(NamedTuple):
    """What an id was made from: a lane, and on both input topics the offset after the user's last event, 0 for none."""

    lane: int
    next_offsets: tuple[int, int]

    @classmethod
    def of(cls, name: str) -> Self | None:
        """The origin that a placement's id tells; None for what is no such id."""
        parts = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{16}(\..*)?", name)
        if parts is None:
            return None
        lane, first, second = (int(part, 16) for part in parts.groups()[:3])
        return cls(lane, (first, second))


def made_for(names: Sequence[str], users: Sequence[str]) -> Bools:
    """Whether each of ``names [N]`` is the id of a placement for the user at the same place in ``users [N]``."""
    ends = id64s(users).astype(">u8").tobytes().hex(" ", 8).split()
    own = [name.partition(".")[0].endswith(end) for name, end in zip(names, ends, strict=True)]
    return np.array(own, dtype=np.bool_)
