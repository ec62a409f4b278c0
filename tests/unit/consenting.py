"""A lane with a control topic, driven by hand, and what people say on it."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from scoring.attention import load
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine, Policy
from scoring.units import DAY_MS
from streams.control import Control
from streams.control_wire import Consent, ControlMessage, Erasure
from streams.privacy.consent import Watermarks, digest_of
from streams.privacy.requests import R, Requests
from streams.step import Effects, Step
from streams.wire import RESERVED, Placement, encode_json
from tests.builders import START_MS, Record, entry
from tests.unit.slices import NOW_MS, new_state, slice_of


def told(message: ControlMessage, offset: int, came_ms: int | None = None) -> Record:
    """Its record, which came when the message was made, unless it is said when."""
    made_ms = max(START_MS, getattr(message, "time_ms", 0))
    return Record("control", 0, offset, made_ms if came_ms is None else came_ms, message.key, encode_json(message))


def refusal(user: str, time_ms: int = START_MS) -> Consent:
    return Consent(user_id=user, granted=False, time_ms=time_ms)


def grant(user: str, time_ms: int = START_MS) -> Consent:
    return Consent(user_id=user, granted=True, time_ms=time_ms)


def erasure(user: str, time_ms: int = START_MS) -> Erasure:
    return Erasure(user_id=user, time_ms=time_ms)


def by_digest(*said: R) -> dict[bytes, R]:
    """Answers or erasures, as a gate is asked by them."""
    return {digest_of(each.user_id.encode()): each for each in said}


def no_of(marks: Watermarks, user: bytes) -> int:
    """When the user's newest no on an event was sent; -1 where there is none."""
    return marks.no_ms.get(digest_of(user), -1)


def opened(data_to_ms: int | None = None) -> Engine:
    """A shop of its own, whose model was trained up to ``data_to_ms``."""
    model = load()
    if data_to_ms is not None:
        model = replace(model, manifest=msgspec.structs.replace(model.manifest, data_to_ms=data_to_ms))
    shop = Catalogue(model.encode, model.dim)
    shop.upsert([entry(f"ad-{n}", category=f"c{n % 7}", bid_micros=100 + n) for n in range(40)])
    return Engine(shop, model, Policy(slots=5, shares=Shares(count=20)))


def placements(effects: Effects) -> dict[bytes, Placement | None]:
    """The placements by user; None: it is taken back."""
    return {
        message.key or b"": None if message.value is None else msgspec.json.decode(message.value, type=Placement)
        for message in effects.messages["placements"]
    }


class Bench:
    """A lane with a control topic, driven by hand."""

    def __init__(self, engine: Engine, *, presumed: bool = True, scoring: bool = True) -> None:
        self.control = Control()
        self.requests = Requests(self.control, lambda _: 0)
        self.step = Step(
            engine,
            lambda _: 0,
            300_000,
            30 * DAY_MS,
            scoring=scoring,
            requests=self.requests,
            consent_presumed=presumed,
        )
        self.state = new_state()
        self.changelog: dict[bytes, bytes] = {}

    def tell(self, *messages: ControlMessage, refused: int = 0) -> None:
        """Put ``messages`` on the control topic, as many of which are ``refused``."""
        assert sum(self.control.take([told(message, self.control.next_offset)]) for message in messages) == refused

    def run(self, taken: Sequence[Record] = (), now_ms: int = NOW_MS) -> Effects:
        effects = self.step.run(self.state, slice_of(taken), now_ms)
        for message in [*effects.messages["state-changelog"], *effects.watermarks]:
            assert message.key is not None
            self.changelog.pop(message.key, None)
            if message.value is not None:
                self.changelog[message.key] = message.value
        return effects

    def kept(self) -> set[bytes]:
        """Users with a row in the changelog."""
        return {key for key in self.changelog if not key.startswith(RESERVED)}

    def users(self) -> set[bytes]:
        return {user for user in self.state.store.users if user is not None}
