"""What speaks against promoting a shadow is what it says, and not that a click layer had to get to know it."""

from functools import cache

import numpy as np
import pytest

from scoring.arrays import Ids, Singles
from scoring.events import Events, Source
from scoring.evidence import KNOWN, Evidence
from scoring.feedback import ClickLayer, Learning
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from streams.columns import columns
from streams.control_wire import ModelStatus, PushedModel
from streams.models.roles import Limits, Record, objections
from streams.wire import Click, Impression
from tests.builders import START_MS
from tests.unit.test_feedback import events_of

OTHER, NEW = 8, 9
STEADY, BUSY, QUIET = (20_000, 10.0), (30_000, 40.0), (4_000, 0.1)
"""Impressions, and so many of them a second. Of a busy shop nothing is known yet that was shown since a model was."""


@cache
def shop(shown: int, a_second: float) -> tuple[Events, Ids, Singles]:
    """A shop in which ads differ: its events, whose they are, and the log-odds of each impression."""
    random = np.random.default_rng(2)
    logits = random.normal(-2.9, 1.0, shown)
    events: list[Impression | Click] = []
    for number, logit in enumerate(logits.tolist()):
        at_ms = START_MS + int(number * 1000 / a_second)
        who = {"user_id": f"u{random.integers(3_000)}", "ad_id": f"a{random.integers(300)}"}
        events.append(Impression(event_id=f"i{number}", time_ms=at_ms, **who))
        if random.random() < 1 / (1 + np.exp(-logit)):
            then = {"time_ms": at_ms + 2_000, "impression_time_ms": at_ms}
            events.append(Click(event_id=f"c{number}", **then, **who))
    events.sort(key=lambda one: one.time_ms)
    rows: dict[str, int] = {}
    users = np.array([id64(one.user_id.encode()) for one in events], dtype=np.uint64)
    return columns(events, [rows.setdefault(one.user_id, len(rows)) for one in events]), users, logits.astype("f4")


def held(size: tuple[int, float], shadow: Singles, *, promoted: bool = False) -> Evidence:
    """What is known of a shadow of these log-odds, beside a model that knows what is true.

    ``promoted``: that one, in the middle; beside the one before, which knows nothing, the shadow was as good.
    """
    events, users, logits = shop(*size)
    layer, place = ClickLayer(), np.flatnonzero(events["source"] == Source.IMPRESSION)
    layer.learner(0)
    evidence = layer.learner(NEW).evidence
    context, none = np.zeros((len(place), CONTEXT_DIM), dtype=np.float32), np.zeros(len(events), dtype=np.bool_)
    half = len(events) // 2 if promoted else 0
    for part, live in ((slice(0, half), OTHER), (slice(half, None), 0)):
        here = np.isin(place, np.arange(len(events))[part])
        said = np.full_like(logits, -2.9) if live else logits
        by = np.full(int(here.sum()), live, dtype=np.uint32)
        at = place[here] - (part.start or 0)
        seen = Impressions(at, said[here], context[here], by, shadow_logit=shadow[here], shadow=NEW)
        layer.learner(live)
        layer.heed(live)
        layer.observe(events[part], users[part], none[part], seen)
    return evidence


def against(size: tuple[int, float], shadow: Singles, lanes: int = 1) -> list[str]:
    """What speaks against it where so many lanes fare alike."""
    evidence = held(size, shadow)
    told = {name: getattr(evidence, name) for name in evidence.__slots__}
    statuses = [ModelStatus(model="new-00000001", lane=lane, worker="w", time_ms=1, **told) for lane in range(lanes)]
    pushed = PushedModel(model=statuses[0].model, manifest="{}", bytes=1, parity=1e-6, score_ms=0.2, time_ms=1)
    return objections(pushed, Record.of(statuses), Limits())


@pytest.mark.parametrize("size", [STEADY, BUSY, QUIET], ids=["steady", "busy", "quiet"])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1.0), (0.5, 0.0)])
def test_a_shadow_that_the_click_layer_has_to_calibrate_is_not_called_worse(
    size: tuple[int, float], scale: float, shift: float
) -> None:
    told = against(size, shop(*size)[2] * np.float32(scale) + np.float32(shift))
    assert not [each for each in told if each.startswith("as a shadow")]


def test_a_shadow_is_held_against_what_is_live_on_what_was_shown_after_it_was_known_whenever_that_is_judged() -> None:
    """It is known at 20 s, when the windows of its first end; what was shown at 5 s is judged then as well."""
    layer, known_ms = ClickLayer(Learning(window_ms=10_000)), 20_000
    for number in (0, NEW):
        layer.learner(number)
    times = [*range(KNOWN), 5_000, known_ms, known_ms + 1, 60_000]
    events = events_of(*((at_ms, "shown", ad, at_ms) for ad, at_ms in enumerate(times)))
    none, context = np.zeros(len(times), dtype=np.float32), np.zeros((len(times), CONTEXT_DIM), dtype=np.float32)
    by = np.zeros(len(times), dtype=np.uint32)
    seen = Impressions(np.arange(len(times)), none, context, by, shadow_logit=none, shadow=NEW)
    layer.observe(events, np.ones(len(times), dtype=np.uint64), none > 0, seen)
    assert layer.learner(NEW).known_ms == known_ms
    assert (layer.learner(NEW).learned, layer.learner(NEW).evidence.beside) == (KNOWN + 3, 1)


def less(size: tuple[int, float]) -> Singles:
    """Log-odds that know less of ads."""
    return shop(*size)[2] + np.random.default_rng(3).normal(size=size[0]).astype(np.float32)


def test_a_shadow_that_knows_less_of_ads_is_not_promoted_though_it_is_calibrated() -> None:
    (told,) = against(STEADY, less(STEADY))
    assert told.startswith("as a shadow it cost 0.0")


@pytest.mark.parametrize("size", [STEADY, QUIET], ids=["it was not known yet", "it was known long before"])
def test_a_shadow_is_held_against_what_is_live_now_and_not_against_what_was(size: tuple[int, float]) -> None:
    alone, after = held(size, less(size)), held(size, less(size), promoted=True)
    assert 1_000 < after.beside < alone.beside / 1.4
    assert (after.gain or 0) < -0.01


@pytest.mark.parametrize(
    ("lanes", "size", "counts"), [(1, (1_500, 0.1), "380 of its 1,440"), (8, (900, 0.1), "0 of its 6,720")]
)
def test_a_shadow_that_knows_nothing_is_promoted_neither_before_it_was_compared_nor_after(
    lanes: int, size: tuple[int, float], counts: str
) -> None:
    (early,) = against(size, noise(size), lanes)
    assert early.startswith(f"{counts} outcomes were compared with what is live; expected 1,000")
    (late,) = against(STEADY, noise(STEADY), lanes)
    assert late.startswith("as a shadow it cost 0.0")


def noise(size: tuple[int, float]) -> Singles:
    """Log-odds as far apart as those that are true, which say nothing."""
    return np.random.default_rng(4).normal(-2.9, 1.0, size[0]).astype(np.float32)
