"""The topic of tones as the catalogue's: how ads are reviewed, live in every worker and, by time, in training."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import structlog

from scoring.catalogue import Catalogue
from scoring.ids import id64s
from scoring.tones import Said, ToneHistory
from streams.compute import Compute
from streams.decode import Record
from streams.feeds.topic import TopicFeed
from streams.settings import Settings
from streams.topics import TONES
from streams.wire import UNREADABLE, Tone

log = structlog.get_logger()

RECORDS_PER_READ = 5_000
"""Taken in one call, which a slice may have to wait for: about 15 ms, with a hundred thousand ads reviewed."""
OF_AD = b"ad/"
"""What the keys of ads' tones begin with; those of brands are for people."""
_decode = msgspec.json.Decoder(Tone).decode


def history_of(tones: Sequence[Tone]) -> ToneHistory:
    """What was said of ads, as training takes it; what is said of brands is left out."""
    of_ads = sorted((tone for tone in tones if tone.of == "ad"), key=lambda tone: tone.time_ms)
    return ToneHistory(
        id64s([tone.name for tone in of_ads]),
        np.array([tone.time_ms for tone in of_ads], dtype=np.int64),
        _said([(tone.reviews, tone.tone) for tone in of_ads]),
    )


def take(catalogue: Catalogue, records: Sequence[Record]) -> int:
    """Let ``catalogue`` hear ``records`` of the topic, of one ad the last; the number of those that are no tones.

    Such a one leaves what was heard before.
    """
    heard: dict[str, Sequence[float]] = {}
    refused = 0
    for record in records:
        key = record.key or b""
        if not key.startswith(OF_AD):
            continue
        try:
            name, *said = _read(key, record.value)
        except UNREADABLE as error:
            refused += 1
            log.warning("tone refused", offset=record.offset, error=str(error))
            continue
        heard[name] = said
    if heard:
        catalogue.tones.take(id64s(list(heard)), _said([*heard.values()]))
    return refused


def _read(key: bytes, value: bytes | None) -> tuple[str, float, float]:
    """The ad that a record is of, its reviews and their tone; none of an ad that is withdrawn. Raises `ValueError`."""
    if value is None:
        return key.removeprefix(OF_AD).decode(), 0, 0
    tone = _decode(value)
    if tone.key != key:
        raise ValueError(f"the record's key is {key!r}, expected {tone.key!r}")
    return tone.name, tone.reviews, tone.tone


def _said(numbers: Sequence[Sequence[float]]) -> Said:
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


class ToneFeed(TopicFeed):
    """Keeps the catalogue's tones in step with the topic."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, compute: Compute, fail: Callable[[BaseException], None]
    ) -> None:
        super().__init__(settings, TONES, compute, fail, RECORDS_PER_READ)
        self._catalogue = catalogue

    def take(self, records: Sequence[Record]) -> int:
        """Take a batch; the number of records refused."""
        return take(self._catalogue, records)
