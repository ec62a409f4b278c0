"""Replaces people's names at the edge: what reaches the topics is a keyed hash, and the key stays with the shop.

    names = Pseudonyms({"2024b": new_key, "2024a": old_key})
    names.of("alice@example.org")  # the user_id to put on events: "2024b-" and 32 letters and digits
    names.all("alice@example.org")  # under every key that is still held: what an erasure must name

**Rotation.** Put the new key first and keep the old ones. People are then new to the engine, so look up placements
under `all` of their pseudonyms; their former state expires with `SALIENCE_IDLE_TTL_MS`. Drop an old key when that time
has passed. To drop it at once, erase its pseudonyms first.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

KEY_BYTES_MIN = 16
"""128 bits: names are few and can be tried one by one, so only the key keeps them unknown."""
KEY_BYTES_MAX = 64
"""BLAKE2b takes no longer key."""
_DIGEST_BYTES = 20
"""160 bits, 32 characters of base 32: no two people of a shop will ever share a digest."""
_KEY_NAME = re.compile(r"[a-z0-9]{1,16}")


class PseudonymError(ValueError):
    """Keys that would not keep names unknown. The message names a bad key by its place, and never shows it."""


def _refusal(name: str, key: bytes) -> str:
    """Why a key would not do. Does not show the name: where a line lacks one of the two, the name may be the key."""
    if not _KEY_NAME.fullmatch(name):
        return "expected a name of 1 to 16 lower-case letters and digits, and then the key"
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        return f"the key after the name has {len(key)} bytes; expected {KEY_BYTES_MIN} to {KEY_BYTES_MAX}"
    return ""


class Pseudonyms:
    """Pseudonyms under named keys, the first of which is in use: BLAKE2b, keyed (RFC 7693), in base 32 (RFC 4648)."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """``keys``: secret bytes by name, the newest first. Raises `PseudonymError`."""
        if not keys:
            raise PseudonymError("no key is given; expected at least one, such as 32 bytes of `openssl rand -hex 32`")
        for number, (name, key) in enumerate(keys.items(), start=1):
            if why := _refusal(name, key):
                raise PseudonymError(f"key {number}: {why}")
        self._keys = dict(keys)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Keys from a file, the newest first: a line each, ``name hexadecimal-key``. Raises `PseudonymError`."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # the error itself would show a byte of the file
            raise PseudonymError(f"{path}: the file is not UTF-8") from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, start=1):
            name, _, told = line.strip().partition(" ")
            if not name or name.startswith("#"):
                continue
            try:
                key = bytes.fromhex(told)
            except ValueError:
                raise PseudonymError(f"{path}:{number}: the key is not hexadecimal") from None
            if why := _refusal(name, key):
                raise PseudonymError(f"{path}:{number}: {why}")
            if name in keys:  # one of the two keys would be lost, and nothing written under it could be found
                raise PseudonymError(f"{path}:{number}: the name {name} stands twice; expected another for each key")
            keys[name] = key
        return cls(keys)

    def of(self, person: str) -> str:
        """The person's pseudonym under the key in use: a ``user_id``."""
        return self._under(next(iter(self._keys)), person)

    def all(self, person: str) -> list[str]:
        """The person's pseudonyms under every key held, the one in use first."""
        return [self._under(name, person) for name in self._keys]

    def _under(self, name: str, person: str) -> str:
        digest = hashlib.blake2b(person.encode(), key=self._keys[name], digest_size=_DIGEST_BYTES).digest()
        return f"{name}-{base64.b32encode(digest).decode().lower()}"
