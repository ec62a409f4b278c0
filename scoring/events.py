"""A batch of events as columns: what every input becomes before it touches state."""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools


class Source(IntEnum):
    """The input topic of an event. Of two events with the same timestamp the impression comes first."""

    IMPRESSION = 0
    CLICK = 1


class Kind(IntEnum):
    """What happened between a person and an item, from least to most: the stronger of two wins."""

    NONE = 0
    SHOWN = 1
    VIEWED = 2
    VIEWED_LONG = 3
    CLICKED = 4
    CARTED = 5
    PURCHASED = 6


class Outcome(IntEnum):
    """What became of an event: applied, or the first rule that kept it from being applied (`scoring.cleaning`)."""

    APPLIED = 0
    DUPLICATE = 1  # its id is remembered
    REPLAYED = 2  # at or below the row's offset: applied before a crash
    LATE = 3  # older than the lane's time by more than the window
    BURST = 4  # beyond what one person can do in a minute
    BOT = 5  # beyond what one person does in a day
    RESHOWN = 6  # an impression seen before, under another id (and perhaps another price)
    UNSHOWN = 7  # answers an impression that never was, beyond the number allowed per day


FILTERED = (Outcome.BURST, Outcome.BOT, Outcome.RESHOWN, Outcome.UNSHOWN)
"""Outcomes that are no person's attention: counted by rule, and no part of interest."""

TIME_MS_MAX = 4_102_444_800_000
"""The year 2100, the wire's own bound."""
VIEWED_LONG_MS = 10_000
"""A view this long counts as `Kind.VIEWED_LONG`."""

EVENT = np.dtype(
    [
        ("time_ms", "<i8"),  # when it happened, UTC
        ("stream_ms", "<i8"),  # the lane's time (watermark): the newest record time up to and including this event's
        ("shown_ms", "<i8"),  # when the impression it answers was shown; its own time where it answers none
        ("ad", "<u8"),  # id64 of the ad
        ("event", "<u8"),  # id64 of the event id
        ("offset", "<i8"),  # offset in its topic's partition
        ("value_micros", "<i8"),  # value of a purchase
        ("viewed_ms", "<i8"),  # how long the person looked at the ad
        ("price_micros", "<i8"),  # the ad's price in the placement, as the event states it
        ("seal", "<u8"),  # the seal of that price; 0 where not said
        ("placement", "<u8"),  # id64 of the placement that it answers
        ("arms", "<u8"),  # id64 of the experiment arms in the placement's id; 0 where it names none
        ("row", "<i4"),  # the user's row in the lane
        ("surface", "<u2"),  # the place in the app, hashed; 0 where not said
        ("slot", "<i2"),  # the ad's slot in that placement; -1 where not said
        ("source", "u1"),
        ("kind", "u1"),
        ("own", "?"),  # its seal belongs to a placement that was made for this user
        ("answers", "?"),  # it names the impression that it answers; what people do unprompted names none
    ]
)

Events = npt.NDArray[Any]
"""Structured array of `EVENT`, ``[E]``, in the order of application."""


def only(events: Events, chosen: Bools) -> Events:
    """The chosen events; if all are chosen, ``events`` itself: copying 2,000 takes as long as applying 100."""
    return events if chosen.all() else events[chosen]
