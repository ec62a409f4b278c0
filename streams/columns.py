"""Wire events as rows of `EVENT`, filled column by column: assigning a list to a column at once is fast."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from scoring.events import EVENT, VIEWED_LONG_MS, Events, Kind, Source
from scoring.ids import id64, id64s
from streams import wire
from streams.placement_ids import made_for

Event = wire.Impression | wire.Click
"""What happens: of every user in order, on one of two topics (`source_of`)."""
Places = npt.NDArray[np.int64]

_KINDS = {"click": Kind.CLICKED, "view": Kind.VIEWED, "cart": Kind.CARTED, "purchase": Kind.PURCHASED}


def source_of(event: Event) -> Source:
    """The one of `streams.topics.LANE_INPUTS` that an event travels on."""
    return Source.CLICK if isinstance(event, wire.Click) else Source.IMPRESSION


def columns(events: Sequence[Event], rows: Sequence[int]) -> Events:
    """Wire events as ``[E]`` of `EVENT`, in order; ``rows`` are the users' rows.

    Offsets are the positions; stream time is the newest time so far, as if each event came when it happened.
    """
    out = np.zeros(len(events), dtype=EVENT)
    is_click = np.fromiter((isinstance(event, wire.Click) for event in events), dtype=np.bool_, count=len(events))
    for source in Source:
        places = np.flatnonzero(is_click == (source == Source.CLICK))
        fill(out, places, source, [events[place] for place in places.tolist()])
    out["stream_ms"] = np.maximum.accumulate(out["time_ms"])
    out["offset"] = np.arange(len(events))
    out["row"] = rows
    return out


def fill(out: Events, places: Places, source: Source, events: list[Event]) -> dict[int, str]:
    """Write ``events``, all of ``source``, into ``out`` at their ``places``, column by column.

    Returns the experiment tags in their placement ids, by the tag's id64.
    """
    if not events:
        return {}
    column = np.zeros(len(events), dtype=EVENT)
    column["source"] = source
    column["time_ms"] = [event.time_ms for event in events]
    column["shown_ms"] = column["time_ms"]
    column["ad"] = id64s([event.ad_id for event in events])
    column["event"] = id64s([event.event_id for event in events])
    said = [event.surface for event in events]
    surfaces = {name: _surface(name) for name in set(said)}
    column["surface"] = [surfaces[name] for name in said]
    arms = _fill_sold(column, events)
    if source == Source.IMPRESSION:
        _fill_shown(column, cast("list[wire.Impression]", events))
    else:
        _fill_done(column, cast("list[wire.Click]", events))
    out[places] = column
    return arms


def _fill_shown(column: Events, events: list[wire.Impression]) -> None:
    """Write the fields that only impressions have."""
    column["kind"] = Kind.SHOWN
    column["slot"] = [-1 if event.slot is None else event.slot for event in events]


def _fill_done(column: Events, events: list[wire.Click]) -> None:
    """Write the fields that only clicks, views, carts and purchases have, and which impressions they answer."""
    viewed_ms = 1000 * np.array([event.viewed_s or 0.0 for event in events])
    kind = np.array([_KINDS[event.kind] for event in events], dtype=np.uint8)
    kind[(kind == Kind.VIEWED) & (viewed_ms >= VIEWED_LONG_MS)] = Kind.VIEWED_LONG
    column["kind"], column["slot"] = kind, -1
    column["viewed_ms"] = np.rint(viewed_ms)
    value_micros = [event.value_micros for event in events]
    column["value_micros"] = np.where(kind == Kind.PURCHASED, value_micros, 0)  # what is in a cart is not sold
    answered_ms = [event.impression_time_ms for event in events]
    column["answers"] = [shown_ms is not None for shown_ms in answered_ms]
    column["shown_ms"] = [
        event.time_ms if shown_ms is None else shown_ms for event, shown_ms in zip(events, answered_ms, strict=True)
    ]


def _fill_sold(column: Events, events: list[Event]) -> dict[int, str]:
    """Write prices and seals; return the experiment tags in placement ids, by the tag's id64."""
    names = [event.placement_id or "" for event in events]
    seals = [event.seal for event in events]
    if not (any(seals) or any(names)):
        return {}
    column["placement"], column["price_micros"] = id64s(names), [event.price_micros for event in events]
    if any(seals):  # only sealed events are asked for it
        column["own"] = made_for(names, [event.user_id for event in events])
    column["seal"] = [_sealed(text) if text else 0 for text in seals]
    said = [name.partition(".")[2] for name in names]
    arms = {arm: id64(arm) if arm else 0 for arm in set(said)}
    column["arms"] = [arms[name] for name in said]
    return {number: arm for arm, number in arms.items() if arm}


def _sealed(text: str) -> int:
    """A seal's number; 0 where there is none, or it is not hex."""
    try:
        return int.from_bytes(bytes.fromhex(text), "big")
    except ValueError:
        return 0


def _surface(name: str) -> int:
    """A surface's number, 1 to 65,535; 0 where the event names none."""
    return 1 + id64(name) % 65_535 if name else 0
