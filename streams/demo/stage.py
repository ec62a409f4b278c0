"""The demo's main loop: shoppers act, look at the placement that the ad server has for them, and react to it.

Only the shoppers draw random numbers; the time is an argument. Events are handed to ``send`` when they are due.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from streams.client import priced
from streams.demo.agenda import Agenda
from streams.demo.meter import Meter
from streams.demo.shop import Event, Shoppers
from streams.wire import Ad, Impression, Placement

PAGE_MS = 200
"""So long after an act the next page appears, with the placement that the ad server holds by then."""
SAMPLE_MS = 2_500
"""How long a sample placement stays, so that people can read it."""

Lookup = Callable[[str], Placement | None]
Send = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """A placement of the engine's arm, to show in the view."""

    placement: Placement
    time_ms: int


class Stage:
    """Connects the shoppers with ``lookup``, an ad server's view of placements, and ``send``, for their events."""

    def __init__(self, shoppers: Shoppers, meter: Meter, lookup: Lookup, send: Send) -> None:
        self.ads: dict[str, Ad] = {ad.ad_id: ad for ad in shoppers.ads}
        self.sample: Sample | None = None
        self._shoppers = shoppers
        self._meter = meter
        self._lookup = lookup
        self._send = send
        self._events: Agenda[Event] = Agenda()
        self._pages: Agenda[str] = Agenda()

    def tick(self, now_ms: int) -> None:
        """Do everything that is due by ``now_ms``."""
        acts = self._shoppers.organic(now_ms)
        self._plan(acts)
        for user in dict.fromkeys(event.user_id for event in acts):
            self._pages.add(now_ms + PAGE_MS, user)
        for user in self._pages.due(now_ms):
            self._look(user, now_ms)
        for event in self._events.due(now_ms):
            self._send(event)

    def _look(self, user: str, now_ms: int) -> None:
        placement = self._lookup(user)
        if placement is None:  # someone new: the page has no ads yet
            return
        ads = [slot.ad_id for slot in placement.slots]
        seen = self._shoppers.see(user, ads, placement.placement_id, now_ms)
        answers = [priced(event, placement) for event in seen]
        impressions = sum(isinstance(event, Impression) for event in answers)
        clicks = sum(not isinstance(event, Impression) and event.kind == "click" for event in answers)
        self._meter.seen(user, placement.arm, impressions, clicks)
        self._plan(answers)
        self._pick_sample(placement, now_ms)

    def _plan(self, events: Collection[Event]) -> None:
        for event in events:
            self._events.add(event.time_ms, event)

    def _pick_sample(self, placement: Placement, now_ms: int) -> None:
        """Every `SAMPLE_MS` at most, take another placement of the engine whose first ad has a reason."""
        explained = placement.arm != "control" and placement.slots and placement.slots[0].attention
        if explained and (self.sample is None or now_ms - self.sample.time_ms >= SAMPLE_MS):
            self.sample = Sample(placement, now_ms)
