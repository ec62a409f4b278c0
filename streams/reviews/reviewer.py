"""Learns from reviews: which tones to publish, and which state to keep so that another reader can go on. No I/O.

It keeps tones only for ads of the catalogue and their brands. It learns from reviews of other ads, too.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from scoring.ids import id64
from scoring.sentiment import Sentiment, ToneWatch, by_stars
from scoring.tones import MEMORY
from scoring.units import DAY_MS
from streams.decode import Record
from streams.feeds.catalogue import read_ad
from streams.letters import letter
from streams.message import Message
from streams.oldest import give_up_oldest
from streams.refusal import Refusal
from streams.reviews.state import AT, At, Heard, Known, Lesson, said_of, teach, tone_of
from streams.wire import UNREADABLE, Ad, Review, Tone

STAGE = "review"
"""Stage of its dead letters."""
STEP = 0.01
"""Least move of a tone that is worth a record, unless it has turned."""
SURER = 1.5
"""A tone is also worth a record once its number of reviews, `MEMORY` at most, is so many times the one published:
models use that number."""

IDS_MAX = 100_000
"""Ids of reviews kept to tell which ones come again: 10 MB. A review sent again after so many others counts again."""

LESSON_REVIEWS, LESSON_MS = 10_000, DAY_MS
"""A lesson is written whole after so many reviews, or once the last review's time is so far before or after the
lesson's: a review with a wrong time costs two lessons, and prevents none. The next reader learns again from the reviews
since: two seconds' work, long before they leave their topic."""

_review = msgspec.json.Decoder(Review).decode
_tone = msgspec.json.Decoder(Tone).decode


class Reviewer:
    """What reviews have taught, and the tones to publish. No clock, no broker."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._sentiment, self._watch = Sentiment(), ToneWatch()
        self._ids_max = ids_max
        self._ids: dict[int, None] = {}
        """Ids of the reviews read last, of all ads, oldest first."""
        self._brands: dict[str, str] = {}
        """The brand of each ad on offer."""
        self._leaving = True
        """Whether ads may have gone, or brands lost an ad, since the last `gone`."""
        self._tones: dict[bytes, Tone] = {}
        """The tone of each ad and brand that is watched."""
        self._heard_to: dict[bytes, int] = {}
        """The offset after the last review of each key that this reader has heard."""
        self._ahead: dict[bytes, int] = {}
        """Likewise, for keys whose records are newer than the `AT` record: their writer ended before it wrote that."""
        self._news: dict[bytes, None] = {}
        """Keys whose tones have changed since the last `news`."""
        self._told: dict[bytes, Tone] = {}
        self._owed: list[Tone] = []
        """Tones that the reader before was to publish, and did not."""
        self._owed_turns: list[Tone] = []
        """Those of them that tell of a turn for the first time."""
        self.newly_turned: list[Tone] = []
        """Tones of the last `news` that tell of a turn for the first time."""
        self.next_offset = self._known_to = self._kept_to = 0
        """Offset after the last review; offset up to which it only learns; offset of the last `state`."""
        self._last_ms = 0
        self._lesson = Lesson(next_offset=0, time_ms=0, parts=0, digest="")
        self._unneeded: list[bytes] = []
        self.reviews = self.refused = self.repeated = 0
        self.turned = {"ad": 0, "brand": 0}
        """Turns published for the first time."""
        self._lettered_to: tuple[int, ...] = (-1, -1)
        """The last offset and the newest time of reviews that have dead letters. If the topic is made anew, offsets
        begin again, but times do not."""

    def take_ads(self, records: Sequence[Record]) -> None:
        """Learn the brands of ads, and which ads are withdrawn."""
        for record in records:
            if record.value is None:
                self._leaving = True
                self._brands.pop((record.key or b"").decode(errors="replace"), None)
                continue
            with contextlib.suppress(*UNREADABLE):  # the workers make it a dead letter
                self.offer(read_ad(record.key, record.value))

    def offer(self, ad: Ad) -> None:
        """Learn the brand of an ad."""
        self._leaving |= self._brands.get(ad.ad_id, ad.brand) != ad.brand
        self._brands[ad.ad_id] = ad.brand

    def take_told(self, records: Sequence[Record]) -> None:
        """Learn what stands on ``tones``. A record that is no tone, as of another version, is published anew."""
        for record in records:
            key = record.key or b""
            self._told.pop(key, None)
            with contextlib.suppress(*UNREADABLE):
                tone = _tone(record.value or b"")
                if tone.key == key:
                    self._told[key] = tone

    def take_letter(self, offset: str, time_ms: str, end: int) -> None:
        """Learn that the review at ``offset``, of ``time_ms``, has a dead letter.

        Skips what is no number, and a review beyond the ``end`` of reviews: those to come would have no letters.
        """
        with contextlib.suppress(ValueError):
            origin = int(offset), int(time_ms)
            if origin[0] < end:
                self._lettered_to = tuple(map(max, self._lettered_to, origin))

    @property
    def begin(self) -> int:
        """Offset of the first review to read: the lesson's end."""
        return self._lesson.next_offset

    def go_on(self, known: Known) -> None:
        """Go on from the state of another reader. Call it after `take_told` and before any review."""
        at = known.at
        self._sentiment, self._ids = known.sentiment, dict.fromkeys(known.ids)
        self._lesson, self._unneeded, self._last_ms = at.lesson, [*known.unneeded], at.lesson.time_ms
        self.next_offset, self._known_to, self._kept_to = at.lesson.next_offset, at.next_offset, at.next_offset
        self.turned.update(at.turned)
        self._ahead = {
            key: heard.next_offset for key, heard in known.heard.items() if heard.next_offset > at.next_offset
        }
        for key, heard in known.heard.items():
            self._watch.resume(key.decode(), heard.watched)
            self._tones[key] = heard.tone(key)
            if heard.said is not None and (before := self._told.get(key)) != (said := tone_of(key, heard.said)):
                self._owed.append(said)
                self._told[key] = said
                if _turns(said, before):
                    self._owed_turns.append(said)
                    self.turned[said.of] += key in self._ahead  # other turns are in the `AT` record's count

    def take(self, records: Sequence[Record]) -> Iterator[Message]:
        """Take reviews, each once. Yields dead letters for those that are invalid and have none yet."""
        for record in records:
            known = record.offset < self._known_to
            self.next_offset, self._last_ms = record.offset + 1, record.timestamp
            try:
                review = _read(record)
            except UNREADABLE as error:
                self.refused += not known
                offset, time_ms = self._lettered_to
                if (record.offset > offset or record.timestamp > time_ms) and not known:
                    yield letter(record, STAGE, *Refusal.of(error, record.value))
                continue
            if not self._new(review):
                self.repeated += not known
            elif known:
                self._learn(review)
            else:
                self.hear(review)

    def _new(self, review: Review) -> bool:
        """Whether the review's id is not known yet; remembers it."""
        number = id64(f"{review.ad_id}\n{review.review_id}")
        if number in self._ids:
            return False
        self._ids[number] = None
        give_up_oldest(self._ids, self._ids_max)
        return True

    def hear(self, review: Review) -> None:
        """Take a review: learn from its stars, and update the tones of its ad and brand."""
        self.reviews += 1
        rated = review.positive
        heard = self._sentiment.predict_one(review.text) if rated is None else by_stars(positive=rated)
        self._learn(review)
        brand = self._brands.get(review.ad_id)
        if brand is not None:
            self._hear("ad", review.ad_id, heard, review.time_ms)
        if brand:
            self._hear("brand", brand, heard, review.time_ms)

    def _learn(self, review: Review) -> None:
        if review.positive is not None:
            self._sentiment.learn_one(review.text, review.positive)

    def _hear(self, of: Literal["ad", "brand"], name: str, chance: float, time_ms: int) -> None:
        heard = f"{of}/{name}"
        key = heard.encode()
        if self.next_offset <= self._ahead.get(key, -1):
            return
        turned, tone = self._watch.update(heard, chance), self._watch.tone(heard)
        before = self._tones.get(key, self._told.get(key))  # keeps the last turn, however long ago
        turned_ms = time_ms if turned else before.turned_ms if before is not None else None
        self._tones[key] = Tone(
            of=of, name=name, reviews=tone.reviews, tone=round(tone.mean, 4), turned_ms=turned_ms, time_ms=time_ms
        )
        self._heard_to[key] = self.next_offset
        self._news[key] = None

    def gone(self) -> list[bytes]:
        """Keys of tones to delete: of ads no longer on offer, and of brands no longer on offer nor watched.

        So besides the tones of what is on offer there are at most twice `scoring.sentiment.KEYS_MAX`: of brands watched
        when one last left, and of brands watched now.
        """
        if not self._leaving:
            return []
        self._leaving = False
        known = self._told | self._tones
        offered = {"ad": self._brands.keys(), "brand": set(self._brands.values())}
        keys = [
            key
            for key, tone in known.items()
            if tone.name not in offered[tone.of] and (tone.of == "ad" or key.decode() not in self._watch)
        ]
        for key in keys:
            self._watch.forget(key.decode())
            for of in (self._told, self._tones, self._news):
                of.pop(key, None)
        for owed in (self._owed, self._owed_turns):
            owed[:] = [tone for tone in owed if tone.key in self._told]
        return keys

    def news(self) -> list[Tone]:
        """The tones to publish: those that differ enough from what was published last, and those owed."""
        out = [self._tones[key] for key in self._news if _worth_saying(self._tones[key], self._told.get(key))]
        turns = [tone for tone in out if _turns(tone, self._told.get(tone.key))]
        for tone in turns:
            self.turned[tone.of] += 1
        self._told |= {tone.key: tone for tone in out}
        owed, self._owed = self._owed, []
        self.newly_turned, self._owed_turns = self._owed_turns + turns, []
        self._news.clear()
        return owed + out

    def state(self, reviews_id: str) -> list[Message]:
        """The records of the state that have changed since the last call, in the order to write them.

        Call it after `news`, since the state says what was published. ``reviews_id``: of the reviews' topic.
        """
        changed, upto = self._watch.changed(), max(self.next_offset, self._known_to)
        if not changed and upto == self._kept_to:
            return []
        out = [Message(key, None) for key in self._unneeded]  # first: a new lesson may use the same keys
        former: list[bytes] = []
        if self._is_to_teach(upto):
            former = self._lesson.part_keys()
            self._lesson, parts = teach(self._sentiment, self._ids, upto, self._last_ms)
            out += parts
        for heard, watched in changed.items():
            key = heard.encode()
            if watched is None:
                for of in (self._tones, self._heard_to):
                    of.pop(key, None)
                out.append(Message(key, None))
                continue
            tone, told = self._tones[key], self._told.get(key)
            kept = Heard(watched, tone.turned_ms, tone.time_ms, self._heard_to[key], said_of(told) if told else None)
            out.append(Message(key, msgspec.msgpack.encode(kept)))
        at = At(reviews_id=reviews_id, next_offset=upto, lesson=self._lesson, turned=self.turned)
        out.append(Message(AT, msgspec.msgpack.encode(at)))
        self._kept_to, self._unneeded = upto, []
        return out + [Message(key, None) for key in former]  # last: after the `AT` record that does not name them

    def _is_to_teach(self, upto: int) -> bool:
        """Whether a lesson of the reviews before ``upto`` is to be written."""
        lesson = self._lesson
        many = upto - lesson.next_offset >= LESSON_REVIEWS
        return many or lesson.parts == 0 or abs(self._last_ms - lesson.time_ms) >= LESSON_MS


def _read(record: Record) -> Review:
    """The review in a record. Raises `ValueError`."""
    review = _review(record.value or b"")
    if record.key != review.ad_id.encode():
        raise ValueError(f"key {record.key!r} is not the ad_id {review.ad_id!r}")
    return review


def _turns(tone: Tone, before: Tone | None) -> bool:
    """Whether ``tone`` tells of a turn of which ``before`` did not."""
    return tone.turned_ms is not None and (before is None or before.turned_ms != tone.turned_ms)


def _worth_saying(tone: Tone, told: Tone | None) -> bool:
    if told is None or tone.turned_ms != told.turned_ms or abs(tone.tone - told.tone) >= STEP:
        return True
    return min(tone.reviews, MEMORY) >= SURER * told.reviews
