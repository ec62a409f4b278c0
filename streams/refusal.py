"""Why a record is refused, in words that lead to who can mend it. No I/O."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Self

import msgspec

from streams.wire import UNREADABLE

MESSAGE_CHARS_MAX = 500
"""An error's text is cut to this: it may quote a key or value of any size."""
_QUOTED = re.compile(r"(?<=^Invalid enum value) .*(?= - at `\$)", re.DOTALL)
"""The text that msgspec quotes where it is none of those expected."""
_BEYOND = re.compile(r"(?:Expected [^,]+|Invalid enum value) - at `\$(.+)`")
"""msgspec's message for a value out of bounds. Its message for a wrong type has a comma, and then what it "got"."""
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_SPELT = re.compile(rb"\\u00(?:3\d|[4-7])")
"""A letter, digit or underscore written as an escape: a field's name may be spelt so, and a search would miss it."""
_CUT_OFF = "Input data was truncated"
"""msgspec's message for a value that ends too early."""
_STOPPED = re.compile(rf"{_CUT_OFF}|.*(?:surrogate|hex escape).*\(byte (\d+)\)")
"""msgspec's message for half an emoji, with the byte where it stopped, unless fewer than twelve bytes followed."""
_ESCAPE = re.compile(rb"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\(?:(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)
"""One JSON escape, a UTF-16 surrogate pair counting as one. The group matches half a pair."""
_ESCAPE_BYTES = 6
"""Length of half a pair."""


class Refusal(NamedTuple):
    """Why a value is no event: the error's class and text.

    The error itself is not kept: its traceback refers to the frames of the whole step, which refer back to it. That
    cycle would keep all output of the slice in memory until the garbage collector runs.
    """

    error: str
    message: str

    @classmethod
    def of(cls, error: Exception, value: bytes | None = None) -> Self:
        """What is kept of ``error``, which the JSON ``value`` caused."""
        return cls(type(error).__name__, _in_words(error, value or b"")[:MESSAGE_CHARS_MAX])


def _in_words(error: Exception, value: bytes) -> str:
    """``error`` with what ``value`` holds at that place: a number out of bounds, a length, half an emoji.

    It quotes no text, nor a number that stands where a text should: those may name a person, and messages are shown on
    pages whose readers may not see the record.
    """
    said = _QUOTED.sub("", str(error))
    if isinstance(error, msgspec.ValidationError):
        beyond = _BEYOND.fullmatch(said)
        return said if beyond is None else f"{said}; found {_found(value, beyond[1])}; correct it where it is sent"
    if isinstance(error, msgspec.DecodeError) and (stopped := _STOPPED.fullmatch(said)):
        half = _half(value, int(stopped[1] or len(value)))
        if half:
            return f"a text holds \\{half}, half of a character; cut texts between characters"
        return _cut_off(len(value)) if said == _CUT_OFF else said
    return said


def _cut_off(length: int) -> str:
    """What is said of a value of ``length`` bytes that ends too early."""
    found = f"the value ends unfinished at byte {length:,}" if length else "the value is empty"
    return f"{found}; expected a whole JSON object; correct it where it is sent"


def _half(value: bytes, stop: int) -> str:
    """The escape of half an emoji, whose other half msgspec sought up to byte ``stop`` of ``value``; "" if none.

    It begins at most two escapes before ``stop``; a third is read to see whether it is the second half of a pair. In a
    record that is cut off, a search from its beginning would block the compute thread for a quarter of a second per MB.
    """
    begin = max(0, stop - 3 * _ESCAPE_BYTES)
    before = value[:begin]
    begin -= (len(before) - len(before.rstrip(b"\\"))) % 2  # an unpaired backslash before it begins an escape
    nearest = stop - 2 * _ESCAPE_BYTES
    escapes = _ESCAPE.finditer(value, begin, stop)
    return next((each[1].decode() for each in escapes if each[1] and each.start() >= nearest), "")


def _found(value: bytes, path: str) -> str:
    """The number at ``path`` of the JSON ``value``, or the length of what is there instead.

    If a name on the path occurs twice, it tells neither: msgspec stops at the first wrong one, but decodes the last.
    """
    steps = _STEP.findall(path)
    if _SPELT.search(value) or any(len(_named(name).findall(value)) > 1 for name, _ in steps if name):
        return "what may be one of several"
    raw: bytes | msgspec.Raw = value
    try:
        for name, place in steps:
            raw = _beneath(name)(raw).held if name else msgspec.json.decode(raw, type=list[msgspec.Raw])[int(place)]
        held = msgspec.json.decode(raw)
        return str(held) if isinstance(held, int | float) else f"a length of {len(held):,}"
    except (*UNREADABLE, LookupError, TypeError):
        return "what cannot be read"


def _named(name: str) -> re.Pattern[bytes]:
    """Matches ``name`` as the name of a field, not within a text."""
    return re.compile(rb'"%b"\s*:' % name.encode())


@cache
def _beneath(name: str) -> Callable[[bytes | msgspec.Raw], Any]:
    """A decoder of objects with a field ``name``, which it puts in ``held``; other fields are ignored."""
    held = msgspec.defstruct("Beneath", [("held", msgspec.Raw)], rename={"held": name})
    return msgspec.json.Decoder(held).decode


def ahead(field: str, time_ms: int, sent_ms: int, latest_ms: int) -> str:
    """Why an event is refused whose ``field`` says ``time_ms``, later than the latest that is believed; UTC epoch ms.

    Whose clock is wrong, one record cannot tell. Its own time, ``sent_ms`` (-1: unknown), is by the clock of who sent
    it: where that is not ahead of this machine's, two clocks are against the one that dated the event.
    """
    why = f"{field} {time_ms} is in the future (at most {latest_ms})"
    if sent_ms <= latest_ms:
        return f"{why}; check the producer's clock"
    return f"{why}, as is its record's time, {sent_ms}; where many producers' are, this machine's clock is behind"
