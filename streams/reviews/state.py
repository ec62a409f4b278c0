"""The state of the reader of reviews, as records of ``review-state``, from which another reader can go on. No I/O.

The record `AT` has the offset up to which the state goes. Each ad and brand has a record (`Heard`), written as its
reviews come. Each review changes the whole classifier, so that is written only now and then, in parts (`Lesson`); the
next reader learns again from the reviews since. The topic holds 40 MB at most: `KEYS_MAX` ads and brands of 0.3 KB, and
a lesson of 6 MB, or two lessons where a writer ended half-way.
"""

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from scoring.sentiment import KEYS_MAX, Sentiment, Watched
from streams.message import Message
from streams.wire import UNREADABLE, Count, TimeMs, Tone

VERSION = 1
AT = b"at"
"""Key of the record that is written last."""
PART_BYTES = 256 * 1024
"""Half of the smallest batch that settings allow (``batch_bytes``)."""
LESSON_BYTES_MAX = 8 * 2**20
"""More than a classifier and the ids remembered need."""
PARTS_MAX = LESSON_BYTES_MAX // PART_BYTES
_IDS = struct.Struct("<I")

Said = tuple[Count, float, TimeMs | None, TimeMs]
"""Of a `Tone`: reviews, tone, turned_ms, time_ms; the record's key names its ad or brand."""


class StateError(ValueError):
    """Why a reader cannot go on from the state that is there."""


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """The state of an ad or a brand, under the key of its tone.

    ``next_offset``: the offset after its last review; ``said``: its tone as it stands, or is to stand, on ``tones``.
    """

    watched: Watched
    turned_ms: TimeMs | None
    time_ms: TimeMs
    next_offset: int
    said: Said | None

    def tone(self, key: bytes) -> Tone:
        """Its tone now."""
        watched = self.watched
        return tone_of(key, (watched.reviews, round(watched.mean, 4), self.turned_ms, self.time_ms))


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Where the classifier stands, learnt from the reviews before ``next_offset``, the last of them of ``time_ms``."""

    next_offset: int
    time_ms: int
    parts: int
    digest: str

    def part_keys(self) -> list[bytes]:
        """Keys of its parts, in order."""
        return [f"lesson/{self.next_offset}/{number}".encode() for number in range(self.parts)]


class At(msgspec.Struct, frozen=True, kw_only=True):
    """The record that makes the others valid: the state goes up to ``next_offset`` of the topic with id ``reviews_id``.

    ``turned``: turns counted so far, of ads and of brands.
    """

    version: int = VERSION
    reviews_id: str
    next_offset: int
    lesson: Lesson
    turned: dict[str, Count]


class _Versioned(msgspec.Struct):
    version: int


_decode_at, _decode_versioned = msgspec.msgpack.Decoder(At).decode, msgspec.msgpack.Decoder(_Versioned).decode
_decode_heard = msgspec.msgpack.Decoder(Heard).decode


@dataclass(frozen=True, slots=True)
class Known:
    """The state from which a reader goes on. ``heard``: by key, the longest without a review first."""

    at: At
    sentiment: Sentiment
    ids: Sequence[int]
    heard: Mapping[bytes, Heard]
    unneeded: Sequence[bytes] = field(default_factory=list)
    """Keys of records that a writer left which ended half-way."""


def tone_of(key: bytes, said: Said) -> Tone:
    """The tone that ``key`` stands for. Raises `ValueError`."""
    of, _, name = key.decode().partition("/")
    reviews, tone, turned_ms, time_ms = said
    fields = {"of": of, "name": name, "reviews": reviews, "tone": tone, "turned_ms": turned_ms, "time_ms": time_ms}
    return msgspec.convert(fields, Tone)


def said_of(tone: Tone) -> Said:
    """What a tone says, without its ad's or brand's name."""
    return tone.reviews, tone.tone, tone.turned_ms, tone.time_ms


def teach(sentiment: Sentiment, ids: Iterable[int], next_offset: int, time_ms: int) -> tuple[Lesson, list[Message]]:
    """A lesson, and the messages with its parts. ``ids``: of the reviews remembered, oldest first."""
    numbers = np.fromiter(ids, dtype="<u8")
    content = _IDS.pack(len(numbers)) + numbers.tobytes() + sentiment.to_bytes()
    cut = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    lesson = Lesson(next_offset=next_offset, time_ms=time_ms, parts=len(cut), digest=_digest(content))
    return lesson, [Message(key, part) for key, part in zip(lesson.part_keys(), cut, strict=True)]


def known(held: Mapping[bytes, bytes], reviews_id: str, end: int) -> Known:
    """The state in the records ``held``, the newest of each key. Raises `StateError`.

    ``reviews_id``, ``end``: id and end of the present topic of reviews.
    """
    try:
        at = _at(held, reviews_id, end)
        sentiment, ids = _learnt(held, at.lesson)
        heard = {key: _heard(key, value, end) for key, value in held.items() if key.startswith((b"ad/", b"brand/"))}
    except StateError:
        raise
    except (struct.error, *UNREADABLE) as error:
        raise StateError(f"damaged: {error}") from error
    in_order = sorted(heard.items(), key=lambda one: (one[1].next_offset, one[0]))  # a review's ad before its brand
    watched = dict(in_order[-KEYS_MAX:])  # a writer that ended half-way leaves one more
    return Known(at, sentiment, ids, watched, [*held.keys() - watched.keys() - {AT, *at.lesson.part_keys()}])


def _at(held: Mapping[bytes, bytes], reviews_id: str, end: int) -> At:
    if AT not in held:
        raise StateError("not written to its end")
    if (version := _decode_versioned(held[AT]).version) != VERSION:
        raise StateError(f"of version {version}, this one has {VERSION}")
    at = _decode_at(held[AT])
    if at.reviews_id != reviews_id:
        raise StateError("of another topic of reviews")
    if not 0 <= at.lesson.next_offset <= at.next_offset <= end:
        raise StateError(f"learnt up to {at.lesson.next_offset}, read up to {at.next_offset}, and reviews end at {end}")
    return at


def _learnt(held: Mapping[bytes, bytes], lesson: Lesson) -> tuple[Sentiment, list[int]]:
    if not 0 < lesson.parts <= PARTS_MAX:
        raise StateError(f"damaged: a lesson of {lesson.parts} parts, at most {PARTS_MAX}")
    content = b"".join(held.get(key, b"") for key in lesson.part_keys())
    if _digest(content) != lesson.digest:
        raise StateError("damaged: what was learnt is not what was written")
    (count,) = _IDS.unpack_from(content)
    ids = np.frombuffer(content, dtype="<u8", count=count, offset=_IDS.size)
    return Sentiment.of_bytes(content[_IDS.size + ids.nbytes :]), ids.tolist()


def _heard(key: bytes, value: bytes, end: int) -> Heard:
    heard = _decode_heard(value)
    if not all(map(math.isfinite, heard.watched)):
        raise ValueError(f"{key!r} has numbers that are not finite")
    if heard.next_offset > end:
        raise StateError(f"{key!r} was read up to {heard.next_offset}, and reviews end at {end}")
    heard.tone(key)
    if heard.said is not None:
        tone_of(key, heard.said)
    return heard


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
