"""Messages on the topics: events singly and by the slice, ads, control messages, placements."""

from collections.abc import Callable

import msgspec
import numpy as np

from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Source
from scoring.rows import RowStore
from streams.client import Latest
from streams.conservation import unaccounted
from streams.control import Control
from streams.control_wire import Consent
from streams.decode import decode
from streams.feeds.catalogue import apply_ads
from streams.refusal import MESSAGE_CHARS_MAX
from streams.step import LaneState, Slice, Step
from streams.topics import LANE_INPUTS
from streams.wire import Ad, Click, Impression, Placement, Slot, encode_json
from tests.builders import START_MS, Record, ad, catalogue, click, impression, record
from tests.fuzz.target import Check, Target

LATEST_MS = START_MS + 300_000
USERS_MAX = 64
"""Users after which a target forgets its state, so that it is the input that decides."""


def _event(source: Source) -> Callable[[], Check]:
    def start() -> Check:
        state = _Lane()

        def check(data: bytes) -> None:
            """A record of the topic, keyed as its value says if it can be read at all."""
            try:
                key = msgspec.json.decode(data, type=_Keyed).user_id.encode()
            except (msgspec.MsgspecError, ValueError):
                key = b"user-1"
            state.decode([Record(LANE_INPUTS[source], 0, 0, START_MS, key, data)], source)

        return check

    return start


class _Keyed(msgspec.Struct):
    user_id: str


class _Lane:
    """A lane's rows, begun anew every `USERS_MAX` users."""

    def __init__(self) -> None:
        self.store = RowStore(USERS_MAX)

    def decode(self, records: list[Record], source: Source) -> None:
        sources = np.full(len(records), source, dtype=np.uint8)
        if len(self.store) >= USERS_MAX - len(records):
            self.store = RowStore(USERS_MAX)
        out = decode(records, sources, self.store, latest_ms=LATEST_MS, belongs_here=lambda _: True)
        assert len(out.events) + len(out.dead) == len(records)
        assert all(len(message) <= MESSAGE_CHARS_MAX for *_, message in out.dead)
        assert (out.events["time_ms"] <= LATEST_MS).all()
        assert (out.events["shown_ms"] >= 0).all()


def _slice() -> Check:
    """Whole slices of two topics, many records cut from the bytes: what comes in is accounted for, whatever it is."""
    shop = catalogue(20)
    step = Step(Engine(shop, None, None), lambda _: 0, 300_000, 1, scoring=False)  # type: ignore[arg-type]  # it scores nothing
    lanes = [LaneState(0, ("a", "b"), 1)]

    def check(data: bytes) -> None:
        state = lanes[0]
        records = _records(data, state.next_offsets)
        order = np.array([source for source, _ in records], dtype=np.uint8)
        times = [[r.timestamp for s, r in records if s == source] for source in Source]
        marks = tuple(max([mark, *of]) for mark, of in zip(state.watermarks_ms, times, strict=True))
        effects = step.run(state, Slice([r for _, r in records], order, (marks[0], marks[1])), START_MS)
        assert unaccounted(effects.counts) == 0
        assert effects.counts["events_in"] == len(records)
        assert len(effects.messages["dead-letters"]) == effects.counts["dead"]
        assert len(effects.messages["late-events"]) == effects.counts["late"]
        assert np.isfinite(state.store.rows["interest"]).all()
        if len(state.store) > USERS_MAX:
            lanes[0] = LaneState(0, ("a", "b"), 1)

    return check


_USERS = [f"user-{number}" for number in range(8)]


def _records(data: bytes, offsets: tuple[int, int]) -> list[tuple[int, Record]]:
    """A record for every eight bytes, small numbers picking from small sets; what follows a 255 is a raw value."""
    out: list[tuple[int, Record]] = []
    at = list(offsets)
    head, _, raw = data.partition(b"\xff\xff")
    for place in range(0, len(head) - 7, 8):
        a, b, c, d, e, f, g, h = head[place : place + 8]
        user, ad_id = _USERS[a % 8], f"ad-{b % 24}"
        time_ms = START_MS - 60_000 + (c << 8 | d) * (1 if e < 200 else 20_000)
        told = {"event_id": f"e{f % 32}", "surface": "feed" if e % 3 else ""}
        source = Source(g % 2)
        if source == Source.IMPRESSION:
            event = impression(user, ad_id, time_ms, price_micros=h, **told)
        else:
            shown_ms = None if h < 64 else START_MS - 60_000 + (h << 8)
            event = click(user, ad_id, time_ms, viewed_s=float(h), impression_time_ms=shown_ms, **told)
        out.append((source, record(event, at[source], timestamp=time_ms - (e % 5) * 10_000)))
        at[source] += 1
    if raw:
        out.append((Source.CLICK, Record("clicks", 0, at[1], START_MS, raw[:16], raw)))
    return out


def _ads() -> Check:
    held = [Catalogue(ads_max=256)]

    def check(data: bytes) -> None:
        shop = held[0]
        try:
            key = msgspec.json.decode(data, type=_Item).ad_id.encode()
        except (msgspec.MsgspecError, ValueError):
            key = b"ad-1"
        known = len(shop)
        refused = apply_ads(shop, [Record("ads", 0, 0, START_MS, key, data)])
        assert refused in (0, 1)
        assert len(shop) <= known + 1 - refused
        assert np.isfinite(shop.features[-1:]).all()
        if len(shop) == shop.ads_max:
            held[0] = Catalogue(ads_max=256)

    return check


class _Item(msgspec.Struct):
    ad_id: str


def _control() -> Check:
    held = [Control(256)]

    def check(data: bytes) -> None:
        key, _, value = data.partition(b"\n")
        if len(held[0]) >= 255:
            held[0] = Control(256)
        held[0].take([Record("control", 0, 0, START_MS, key, value or None)])

    return check


def _placement() -> Check:
    view = Latest(users_max=64)

    def check(data: bytes) -> None:
        key, _, value = data.partition(b"\n")
        view.take(key, value or None)
        assert len(view) <= 64

    return check


def _placement_seed() -> bytes:
    slot = Slot(slot=0, ad_id="ad-1", campaign_id="c", pctr=0.1, ecpm_micros=1, price_micros=1, propensity=1.0)
    placement = Placement(
        placement_id="0-1-1-1",
        user_id="user-1",
        time_ms=START_MS,
        valid_until_ms=START_MS + 1,
        arm="engine",
        model="m",
        slots=(slot,),
    )
    return b"user-1\n" + encode_json(placement)


def fields(*types: type[msgspec.Struct]) -> list[bytes]:
    names = {name for type_ in types for name in type_.__struct_fields__}
    words = [f'"{name}":'.encode() for name in sorted(names)]
    return [*words, b"null", b"true", b"1e308", b"-1", b"9223372036854775808", b'"\\ud800"', b"[", b"{", b"\\u0000"]


def _slice_seeds() -> list[bytes]:
    rng = np.random.default_rng(1)
    return [rng.bytes(8 * count) for count in (1, 10, 60)] + [bytes(64) + b"\xff\xff" + encode_json(click())]


MESSAGES = (
    Target(
        "impression",
        _event(Source.IMPRESSION),
        lambda: [encode_json(impression(price_micros=3, surface="feed", slot=1, placement_id="p"))],
        fields(Impression),
    ),
    Target(
        "click",
        _event(Source.CLICK),
        lambda: [encode_json(click(kind=kind, viewed_s=2.5, value_micros=7)) for kind in ("click", "view", "purchase")],
        [*fields(Click), b'"view"', b'"cart"'],
    ),
    Target("slice", _slice, _slice_seeds, size_max=1_024, inputs_per_process=100_000),
    Target("ad", _ads, lambda: [encode_json(ad(category="a/b", tags=("x", "y"), title="t", end_ms=5))], fields(Ad)),
    Target(
        "control",
        _control,
        lambda: [b"consent/user-1\n" + msgspec.json.encode(Consent(user_id="user-1", granted=True, time_ms=START_MS))],
        [*fields(Consent), b"consent/", b'"kind":"consent"'],
    ),
    Target("placement", _placement, lambda: [_placement_seed()], fields(Placement, Slot)),
)
