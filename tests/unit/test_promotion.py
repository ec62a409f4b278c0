"""What speaks against promoting a shadow is what it says, and not that a click layer had to get to know it."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from scoring.events import Events, Source
from scoring.feedback import ClickLayer
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from streams.columns import columns
from streams.control_wire import ModelStatus, PushedModel
from streams.models.roles import Limits, Record, objections
from streams.wire import Click, Impression
from tests.builders import START_MS

SHOWN, A_SECOND, NEW = 20_000, 10, 9
Floats = npt.NDArray[np.float32]


@cache
def shop() -> tuple[Events, npt.NDArray[np.uint64], Floats]:
    """Half an hour of a shop in which ads differ: its events, whose they are, and the log-odds of each impression."""
    random = np.random.default_rng(2)
    logits = random.normal(-2.9, 1.0, SHOWN)
    events: list[Impression | Click] = []
    for number, logit in enumerate(logits.tolist()):
        at_ms = START_MS + number * 1000 // A_SECOND
        who = {"user_id": f"u{random.integers(3_000)}", "ad_id": f"a{random.integers(300)}"}
        events.append(Impression(event_id=f"i{number}", time_ms=at_ms, **who))
        if random.random() < 1 / (1 + np.exp(-logit)):
            then = {"time_ms": at_ms + 2_000, "impression_time_ms": at_ms}
            events.append(Click(event_id=f"c{number}", **then, **who))
    events.sort(key=lambda one: one.time_ms)
    rows: dict[str, int] = {}
    users = np.array([id64(one.user_id.encode()) for one in events], dtype=np.uint64)
    return columns(events, [rows.setdefault(one.user_id, len(rows)) for one in events]), users, logits.astype("f4")


def against(shadow: Floats) -> list[str]:
    """What speaks against a shadow of these log-odds, beside a model that knows what is true."""
    events, users, logits = shop()
    layer, place = ClickLayer(), np.flatnonzero(events["source"] == Source.IMPRESSION)
    layer.learner(0)
    evidence = layer.learner(NEW).evidence
    context = np.zeros((SHOWN, CONTEXT_DIM), dtype=np.float32)
    seen = Impressions(place, logits, context, shadow_logit=shadow, shadow=NEW)
    layer.observe(events, users, np.zeros(len(events), dtype=np.bool_), seen)
    told = {name: getattr(evidence, name) for name in evidence.__slots__}
    status = ModelStatus(model="new-00000001", lane=0, worker="w", time_ms=1, **told)
    pushed = PushedModel(model=status.model, manifest="{}", bytes=1, parity=1e-6, score_ms=0.2, time_ms=1)
    return objections(pushed, Record.of([status]), Limits())


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1.0), (1.0, -1.0), (0.5, 0.0), (2.0, 0.0)])
def test_a_shadow_that_the_click_layer_has_to_calibrate_is_promoted(scale: float, shift: float) -> None:
    assert against(shop()[2] * np.float32(scale) + np.float32(shift)) == []


def test_a_shadow_that_knows_less_of_ads_is_not_though_it_is_calibrated() -> None:
    less = shop()[2] + np.random.default_rng(3).normal(size=SHOWN).astype(np.float32)
    (told,) = against(less)
    assert told.startswith("as a shadow it cost 0.0")
