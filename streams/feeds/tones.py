"""The tones topic: how ads are reviewed. Every worker's catalogue follows it live; training reads it by time."""

from collections.abc import Sequence

import msgspec
import numpy as np
import structlog

from scoring.catalogue import Catalogue
from scoring.ids import id64s
from scoring.tones import Said, ToneHistory
from streams.decode import Record
from streams.wire import UNREADABLE, Tone

log = structlog.get_logger()

RECORDS_PER_READ = 5_000
"""Records taken in one call, which a slice may have to wait for: about 15 ms, with a hundred thousand ads reviewed."""
OF_AD = b"ad/"
"""Prefix of the keys of ads' tones. The tones of brands are for people to read."""
_decode = msgspec.json.Decoder(Tone).decode


def history_of(tones: Sequence[Tone]) -> ToneHistory:
    """The tones of ads by time, as training takes them; those of brands are left out."""
    of_ads = sorted((tone for tone in tones if tone.of == "ad"), key=lambda tone: tone.time_ms)
    return ToneHistory(
        id64s([tone.name for tone in of_ads]),
        np.array([tone.time_ms for tone in of_ads], dtype=np.int64),
        _said([(tone.reviews, tone.tone) for tone in of_ads]),
    )


def take(catalogue: Catalogue, records: Sequence[Record]) -> int:
    """Give ``catalogue`` the tones in ``records`` of the topic, of each ad the last. Returns how many were refused.

    A refused record changes nothing.
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
    """A record's ad, how many reviews it has, and their tone; a tombstone has 0 reviews. Raises `ValueError`."""
    if value is None:
        return key.removeprefix(OF_AD).decode(), 0, 0
    tone = _decode(value)
    if tone.key != key:
        raise ValueError(f"the record's key is {key!r}, expected {tone.key!r}")
    return tone.name, tone.reviews, tone.tone


def _said(numbers: Sequence[Sequence[float]]) -> Said:
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)
