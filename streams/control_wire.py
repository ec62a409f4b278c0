"""What travels on the ``control`` topic: one Struct per kind, JSON with the kind in ``kind``.

The topic is compacted; a record's key is ``kind/name``, so that of each name the newest record stays, and a
tombstone takes it back. A new kind is a subclass of `ControlMessage` with a ``tag`` and a ``name``, in `KINDS`.
"""

from typing import Any, get_args

import msgspec
from msgspec import Struct

from streams.wire import Id, TimeMs


class ControlMessage(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A switch that every worker reads. ``name``: what is switched, unique within the kind."""

    @property
    def name(self) -> str:
        """The second half of the key."""
        raise NotImplementedError

    @property
    def key(self) -> bytes:
        """The record's key."""
        return f"{kind_of(type(self))}/{self.name}".encode()


class Consent(ControlMessage, frozen=True, kw_only=True, tag="consent"):
    """A person's own answer, until the next one. ``time_ms``: when it was given."""

    user_id: Id
    granted: bool
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id


KINDS = Consent
"""Every kind, as a union: ``Consent | Other``."""


def kind_of(message: type[ControlMessage]) -> str:
    """The kind's tag."""
    tag: Any = message.__struct_config__.tag
    return str(tag)


KIND_NAMES = frozenset(kind_of(kind) for kind in get_args(KINDS) or (KINDS,))
decode_control = msgspec.json.Decoder(KINDS).decode
