"""Placement ids: the lane, offsets and user that each was made from; experiment tags follow after a dot."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from scoring.ids import id64, id64s


def placement_id(lane: int, user: bytes, offsets: tuple[int, int]) -> str:
    """The id of the placement that follows from the user's events up to ``offsets``: the same each time it is made."""
    return f"{lane:x}-{offsets[0] + 1:x}-{offsets[1] + 1:x}-{id64(user):016x}"


class Origin(NamedTuple):
    """What an id was made from: a lane, and the offsets of the user's last events on both input topics, -1 for none."""

    lane: int
    offsets: tuple[int, int]

    @classmethod
    def of(cls, name: str) -> Self | None:
        """The origin that a placement's id tells; None for what is no such id."""
        parts = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{16}(\..*)?", name)
        if parts is None:
            return None
        lane, first, second = (int(part, 16) for part in parts.groups()[:3])
        return cls(lane, (first - 1, second - 1))


def made_for(names: Sequence[str], users: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether each of ``names [N]`` is the id of a placement for the user at the same place in ``users [N]``."""
    ends = id64s(users).astype(">u8").tobytes().hex(" ", 8).split()
    own = [name.partition(".")[0].endswith(end) for name, end in zip(names, ends, strict=True)]
    return np.array(own, dtype=np.bool_)
