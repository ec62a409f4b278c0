"""KuaiRand-Pure (https://kuairand.com, CC BY-SA 4.0): impressions of a video feed, and whether they were clicked.

Three files, all CSV, gzipped or not. ``videos.csv.gz``, one line per video, becomes ads; each video is one ad:

=============  =============================================================================================
ad_id          the video's id
campaign_id,   the author, whose videos share a budget. A video that was shown but is not in the file becomes an
advertiser_id  ad without content, of the author ``unknown``
brand          the author
category       the video's type, then the first of its tags: ``NORMAL/39``
tags           every tag, a band of the duration (doublings: ``duration-16s`` is over 8 s, up to 16 s), how it
               was uploaded, and the kind of its music; what the file leaves empty is left out
bid_micros     **invented**, since the log has no auction: 0.05 to 0.50 of the currency unit, from the 64-bit
               hash of the id, so the same everywhere and unrelated to what people like
start_ms       midnight UTC of the day of the upload
=============  =============================================================================================

``impressions_0425_0430.csv.gz``: each line becomes an `Impression`, and also a `Click` where ``is_click`` is 1:

=============  =============================================================================================
event_id       user, video and millisecond: 2 to 3 % of the log are repetitions, which get the same id, as a
               producer's retries would
surface        the place in the app: ``tab-1``; none where the file leaves it empty
time_ms        of the impression: the log's own. **Of the click the log has no time**: it is dated when the
               watching ends, at the impression's time plus the time played, since its length is known only then.
               So it never comes before its impression, and no reader sees an outcome ahead of time. Where the file
               leaves the time played empty, **invented** 18 s take its place
viewed_s       the time played, at most a day; none where the file leaves it empty
kind           ``click``. Time played without a click makes no event
=============  =============================================================================================

``histories.csv.gz``, one line per user, has what the user was shown before: at most 50 videos, oldest first, each with
a digit that says whether it was watched for long. On demand each video becomes an `Impression` without a surface, and
also a ``view`` where it was watched for long. Only the newest has a time. **Invented** are the times of the others, an
hour apart, and the time watched, 18 s, which is long by the log's own rule. What was shown since the impressions began
is left out: it is either among them, or the log does not tell whether it was clicked.

Other outcomes (long view, like, follow, hate) make no message: they follow from these, or no producer would send them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from scoring.ids import id64
from scoring.units import DAY_MS, HOUR_MS
from streams.logs import Event, Log, LogError, in_order
from streams.logs.table import Row, rows
from streams.wire import Ad, Click, Impression

VIDEOS = "videos.csv.gz"
IMPRESSIONS = "impressions_0425_0430.csv.gz"
HISTORIES = "histories.csv.gz"

VIDEO_COLUMNS = (
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "video_duration",
    "music_type",
    "tag",
)
IMPRESSION_COLUMNS = ("time_ms", "user_id", "video_id", "tab", "is_click", "play_time_ms")

HISTORY_COLUMNS = ("user_id", "last_time_ms", "videos", "long_view")
VIDEO_CHARS = 20
HISTORY_MAX = 50
HISTORY_STEP_MS = HOUR_MS
UNKNOWN = "unknown"
"""Author of the videos that were shown but that nothing describes."""
LONG_S = 18
"""What KuaiRand calls a long view of a long video."""

BID_LEAST_MICROS, BID_MOST_MICROS = 50_000, 500_000
TIME_MAX_MS = 4_102_444_800_000 - DAY_MS
"""The wire's latest time less a day, the most that a click may come after its impression."""


def read(directory: Path, *, later: Path | None = None, histories: bool = False) -> Log:
    """The log in ``directory``, its events in time order. Raises `LogError`.

    ``later``: a further file of impressions, anywhere. The folder's impressions from its first one on are left out, so
    that a test uses that file alone. ``histories``: include what users were shown before, as the first events.
    """
    until_ms = TIME_MAX_MS + 1 if later is None else min(times_ms(later))
    events = list(_events(directory / IMPRESSIONS, until_ms))
    begin_ms = min((event.time_ms for event in events), default=until_ms)
    if later is not None:
        events += _events(later)
    ads = {ad.ad_id: ad for ad in map(_ad, rows(directory / VIDEOS, VIDEO_COLUMNS))}
    if histories:
        for row in rows(directory / HISTORIES, HISTORY_COLUMNS):
            events += _history(row, begin_ms)
    for event in events:
        if event.ad_id not in ads:
            ads[event.ad_id] = _unknown(event.ad_id)
    return Log(list(ads.values()), in_order(events))


def times_ms(file: Path) -> list[int]:
    """When the impressions of a file were shown, in its order. Raises `LogError`."""
    return [row.time_ms("time_ms", TIME_MAX_MS) for row in rows(file, IMPRESSION_COLUMNS)]


def _history(row: Row, until_ms: int) -> Iterator[Event]:
    """The videos that a user was shown before ``until_ms``, and those watched for long."""
    user, last_ms = row.name("user_id", longest=20), row.time_ms("last_time_ms", TIME_MAX_MS)
    videos, long = (
        row.text("videos", longest=(VIDEO_CHARS + 1) * HISTORY_MAX).split(),
        row.text("long_view", longest=HISTORY_MAX),
    )
    if len(videos) != len(long) or not set(long) <= {"0", "1"}:
        raise row.error("long_view", f"0 or 1 for each of {len(videos)} videos")
    if max(map(len, videos)) > VIDEO_CHARS:
        raise row.error("videos", f"ids of at most {VIDEO_CHARS} characters")
    for place, (video, digit) in enumerate(zip(videos, long, strict=True)):
        time_ms = max(last_ms - HISTORY_STEP_MS * (len(videos) - 1 - place), 0)
        if time_ms >= until_ms:
            return
        name = f"{user}-{video}-{time_ms}"
        yield Impression(event_id=f"i-{name}", user_id=user, ad_id=video, time_ms=time_ms)
        if digit == "1":
            yield Click(
                event_id=f"v-{name}",
                user_id=user,
                ad_id=video,
                time_ms=time_ms + 1000 * LONG_S,
                kind="view",
                viewed_s=LONG_S,
                impression_time_ms=time_ms,
            )


def _events(file: Path, until_ms: int = TIME_MAX_MS + 1) -> Iterator[Event]:
    for row in rows(file, IMPRESSION_COLUMNS):
        user, video = row.name("user_id", longest=20), row.name("video_id", longest=VIDEO_CHARS)
        time_ms = row.time_ms("time_ms", TIME_MAX_MS)
        if time_ms >= until_ms:
            continue
        place = row.integer_if_told("tab", 0, 999)
        surface = "" if place is None else f"tab-{place}"
        name = f"{user}-{video}-{time_ms}"
        yield Impression(event_id=f"i-{name}", user_id=user, ad_id=video, time_ms=time_ms, surface=surface)
        if row.integer("is_click", 0, 1):
            told_ms = row.integer_if_told("play_time_ms", 0, 2**53)
            played_ms = 1000 * LONG_S if told_ms is None else min(told_ms, DAY_MS)
            yield Click(
                event_id=f"c-{name}",
                user_id=user,
                ad_id=video,
                time_ms=time_ms + played_ms,
                viewed_s=None if told_ms is None else played_ms / 1000,
                impression_time_ms=time_ms,
                surface=surface,
            )


def _ad(row: Row) -> Ad:
    video, author = row.name("video_id", longest=VIDEO_CHARS), row.text("author_id")
    kind, topics = row.values["video_type"], [topic for topic in row.values["tag"].split(",") if topic]
    tags = [f"tag-{topic}" for topic in topics]
    if duration_ms := row.number("video_duration"):
        tags.append(f"duration-{_band_s(duration_ms)}s")
    if uploaded := row.values["upload_type"]:
        tags.append(f"upload-{uploaded}")
    if (music := row.number("music_type")) is not None:
        tags.append(f"music-{music:.0f}")
    ad = Ad(
        ad_id=video,
        campaign_id=author,
        advertiser_id=author,
        bid_micros=bid_micros(video),
        category="/".join([kind, *topics[:1]]),
        brand=author,
        tags=tuple(tags),
        start_ms=_midnight_ms(row),
    )
    try:
        return msgspec.convert(msgspec.structs.asdict(ad), Ad)
    except msgspec.ValidationError as error:
        raise LogError(f"{row.file}, line {row.line}: the video makes no ad: {error}") from error


def _unknown(video: str) -> Ad:
    return Ad(ad_id=video, campaign_id=UNKNOWN, advertiser_id=UNKNOWN, bid_micros=bid_micros(video))


def bid_micros(video: str) -> int:
    """The invented bid: uniform over its range, from the hash of the id."""
    return BID_LEAST_MICROS + id64(f"kuairand/bid/{video}") % (BID_MOST_MICROS - BID_LEAST_MICROS + 1)


def _band_s(duration_ms: float) -> int:
    """The least power of two, in seconds, that the duration does not exceed; at least 1."""
    seconds = max(1, -(-int(duration_ms) // 1000))
    return 1 << (seconds - 1).bit_length()


def _midnight_ms(row: Row) -> int:
    try:
        day = datetime.strptime(row.values["upload_dt"], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise row.error("upload_dt", "a date, YYYY-MM-DD") from None
    return max(0, round(day.timestamp() * 1000))
