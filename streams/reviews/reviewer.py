"""What reviews have taught, what is to be said of it, and what is to be kept so that another goes on. No I/O.

Ads of the catalogue and their brands are heard: of no more does it remember how they sound. Reviews of others teach,
too.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from scoring.ids import id64
from scoring.sentiment import Sentiment, ToneWatch, by_stars
from scoring.tones import MEMORY
from streams.decode import Record, Refusal
from streams.feeds.catalogue import read_ad
from streams.letters import letter
from streams.message import Message
from streams.oldest import give_up_oldest
from streams.reviews.state import AT, At, Heard, Known, Lesson, said_of, teach, tone_of
from streams.topics import DAY_MS
from streams.wire import UNREADABLE, Ad, Review, Tone

STAGE = "review"
"""Of its dead letters."""
STEP = 0.01
"""A tone that has moved by less, and has not turned, is not worth a record."""
SURER = 1.5
"""But one is that rests on so many times the reviews, up to those that it remembers: models go by their number."""

IDS_MAX = 100_000
"""Reviews by whose ids one is told that comes again: 10 MB. What is sent again after so many others is heard again."""

LESSON_REVIEWS, LESSON_MS = 10_000, DAY_MS
"""What reviews teach is written whole once so many have come, or when the last one's time is so far from that of the
last in it, either way: one of a wrong time costs two lessons, and ends none. Reviews since are learnt from again by who
goes on: two seconds' work, and long before they leave their topic."""

_review = msgspec.json.Decoder(Review).decode
_tone = msgspec.json.Decoder(Tone).decode


class Reviewer:
    """What reviews have taught, and what is to be said of it. No clock, no broker."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._sentiment, self._watch = Sentiment(), ToneWatch()
        self._ids_max = ids_max
        self._ids: dict[int, None] = {}
        """Of the reviews of every ad, those read last, oldest first."""
        self._brands: dict[str, str] = {}
        """Of ads that are offered."""
        self._leaving = True
        """Whether ads may have gone, or brands lost an ad, since it was last asked."""
        self._tones: dict[bytes, Tone] = {}
        """Of all who are watched."""
        self._heard_to: dict[bytes, int] = {}
        """And of each that it has heard itself the offset after its last review."""
        self._ahead: dict[bytes, int] = {}
        """Likewise, of those that were written by who ended before he had written all."""
        self._news: dict[bytes, None] = {}
        """Whose tones have changed since it was last asked."""
        self._told: dict[bytes, Tone] = {}
        self._owed: list[Tone] = []
        """Tones that were to be told by who was here before, and are not."""
        self._owed_turns: list[Tone] = []
        """Those of them that tell of a turn for the first time."""
        self.newly_turned: list[Tone] = []
        """Those of the last `news` that do."""
        self.next_offset = self._known_to = self._kept_to = 0
        """Offset after the last review; up to which it only learns, and up to which its state has been asked for."""
        self._last_ms = 0
        self._lesson = Lesson(next_offset=0, time_ms=0, parts=0, digest="")
        self._unneeded: list[bytes] = []
        self.reviews = self.refused = self.repeated = 0
        self.turned = {"ad": 0, "brand": 0}
        """Turns that were said for the first time."""
        self._lettered_to: tuple[int, ...] = (-1, -1)
        """The last offset and the newest time of reviews that have dead letters. Where their topic is made anew offsets
        begin again; times do not."""

    def take_ads(self, records: Sequence[Record]) -> None:
        """Learn the brands of ads, and which are withdrawn."""
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
        """Learn what stands on ``tones``. What is none, of another version or another hand, is said anew."""
        for record in records:
            key = record.key or b""
            self._told.pop(key, None)
            with contextlib.suppress(*UNREADABLE):
                tone = _tone(record.value or b"")
                if tone.key == key:
                    self._told[key] = tone

    def take_letter(self, offset: str, time_ms: str) -> None:
        """Learn that the review at ``offset``, of ``time_ms``, has a dead letter; what is no number says nothing."""
        with contextlib.suppress(ValueError):
            self._lettered_to = tuple(map(max, self._lettered_to, (int(offset), int(time_ms))))

    @property
    def begin(self) -> int:
        """Offset of the first review that it wants."""
        return self._lesson.next_offset

    def go_on(self, known: Known) -> None:
        """Go on from where another stood, with the tones that it has read on ``tones``; before any review."""
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
                    self.turned[said.of] += key in self._ahead  # of others it is counted

    def take(self, records: Sequence[Record]) -> Iterator[Message]:
        """Read reviews, each once; dead letters of those that are none and have none yet."""
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
        """Whether it is none of those remembered; then it is one of them."""
        number = id64(f"{review.ad_id}\n{review.review_id}")
        if number in self._ids:
            return False
        self._ids[number] = None
        give_up_oldest(self._ids, self._ids_max)
        return True

    def hear(self, review: Review) -> None:
        """Take a review: learn from its stars, and what it says of its ad and brand."""
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
        before = self._tones.get(key, self._told.get(key))  # a turn is remembered though its review was long ago
        turned_ms = time_ms if turned else before.turned_ms if before is not None else None
        self._tones[key] = Tone(
            of=of, name=name, reviews=tone.reviews, tone=round(tone.mean, 4), turned_ms=turned_ms, time_ms=time_ms
        )
        self._heard_to[key] = self.next_offset
        self._news[key] = None

    def gone(self) -> list[bytes]:
        """Keys of tones that are to go: of ads that are offered no more, of brands if they are forgotten, too.

        So beside those of what is offered there are at most twice `scoring.sentiment.KEYS_MAX`: of brands that were
        watched when one last left, and of those that are.
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
        """Tones that differ from what was said of them last."""
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
        """What another goes on from, as far as it has changed since it was last asked; once its news are told.

        In the order in which it is to be written. ``reviews_id``: of the topic of reviews.
        """
        changed, upto = self._watch.changed(), max(self.next_offset, self._known_to)
        if not changed and upto == self._kept_to:
            return []
        out = [Message(key, None) for key in self._unneeded]  # first: a lesson up to the same review has their names
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
        return out + [Message(key, None) for key in former]  # after what no longer speaks of them

    def _is_to_teach(self, upto: int) -> bool:
        """Whether what reviews before ``upto`` teach is to be written again."""
        lesson = self._lesson
        many = upto - lesson.next_offset >= LESSON_REVIEWS
        return many or lesson.parts == 0 or abs(self._last_ms - lesson.time_ms) >= LESSON_MS


def _read(record: Record) -> Review:
    """The review that a record is. Raises `ValueError`."""
    review = _review(record.value or b"")
    if record.key != review.ad_id.encode():
        raise ValueError(f"key {record.key!r} is not the ad_id {review.ad_id!r}")
    return review


def _turns(tone: Tone, before: Tone | None) -> bool:
    """Whether ``tone`` tells of a turn that the tone ``before`` did not."""
    return tone.turned_ms is not None and (before is None or before.turned_ms != tone.turned_ms)


def _worth_saying(tone: Tone, told: Tone | None) -> bool:
    if told is None or tone.turned_ms != told.turned_ms or abs(tone.tone - told.tone) >= STEP:
        return True
    return min(tone.reviews, MEMORY) >= SURER * told.reviews
