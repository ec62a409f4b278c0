"""Clicks are known before it is known what was not clicked; whatever begins in a click layer shall not mistake that."""

from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest

from scoring.arrays import Bools
from scoring.clicks import ClickModel
from scoring.events import Source
from scoring.feedback import ClickLayer, Learning, Observed
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from scoring.pending import LOST, PENDING
from streams.columns import columns
from streams.wire import Click, Impression
from tests.builders import START_MS

RATE, A_SECOND = 0.05, 100
NEW, OTHER = 7, 8
"""Numbers of models that score beside the first."""


class World:
    """A steady shop: a twentieth of what is shown is clicked, two seconds later, as the models say to the letter."""

    def __init__(self, seconds: int, seed: int = 1) -> None:
        random, shown = np.random.default_rng(seed), seconds * A_SECOND
        events: list[Impression | Click] = []
        for number in range(shown):
            at_ms, of = START_MS + number * 1000 // A_SECOND, (f"u{random.integers(5_000)}", f"a{random.integers(300)}")
            who = {"user_id": of[0], "ad_id": of[1]}
            events.append(Impression(event_id=f"i{number}", time_ms=at_ms, **who))
            if random.random() < RATE:
                then = {"time_ms": at_ms + 2_000, "impression_time_ms": at_ms}
                events.append(Click(event_id=f"c{number}", **then, **who))
        events.sort(key=lambda one: one.time_ms)
        rows: dict[str, int] = {}
        self.events = columns(events, [rows.setdefault(one.user_id, len(rows)) for one in events])
        self.users = np.array([id64(one.user_id.encode()) for one in events], dtype=np.uint64)
        self.place = np.flatnonzero(self.events["source"] == Source.IMPRESSION)
        self.at_s = (self.events["time_ms"][self.place] - START_MS) / 1000

    def observe(
        self,
        layer: ClickLayer,
        model: npt.NDArray[np.uint32] | None = None,
        shadowed: Bools | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Observed:
        """Tell ``layer`` the events from ``start`` to ``end``, scored by ``model``, 0 where that is left out.

        Beside it the new model says the same of what is ``shadowed``.
        """
        end = len(self.events) if end is None else end
        here = (self.place >= start) & (self.place < end)
        shown = int(here.sum())
        logit = np.full(shown, np.log(RATE / (1 - RATE)), dtype=np.float32)
        context, control = np.zeros((shown, CONTEXT_DIM), dtype=np.float32), np.zeros(end - start, dtype=bool)
        by = None if model is None else model[here]
        beside = None if shadowed is None else np.where(shadowed[here], logit, np.nan).astype(np.float32)
        seen = Impressions(self.place[here] - start, logit, context, by, shadow_logit=beside, shadow=NEW)
        return layer.observe(self.events[start:end], self.users[start:end], control, seen)


def test_a_shop_that_has_just_opened_is_not_thought_to_click_everything() -> None:
    world = World(seconds=60)
    predicted = world.observe(ClickLayer()).predicted
    for start in range(0, 60, 10):
        then = (world.at_s >= start) & (world.at_s < start + 10)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.03), start


def test_a_shop_that_is_suddenly_busy_is_not_either() -> None:
    world = World(seconds=300)
    quiet = (world.at_s < 240) & (np.arange(len(world.at_s)) % 50 > 0)
    known = np.zeros(len(world.at_s), dtype=np.uint32)
    layer = ClickLayer()
    layer.learner(OTHER)
    predicted = world.observe(layer, np.where(quiet, OTHER, known).astype(np.uint32)).predicted
    for start in range(240, 300, 10):
        then = (world.at_s >= start) & (world.at_s < start + 10)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.03), start


def test_a_model_that_is_new_in_a_running_layer_is_not_either() -> None:
    world, layer, since_s = World(seconds=300), ClickLayer(), 120
    new = (world.at_s >= since_s) & (world.users[world.place] % np.uint64(10) < 3)
    predicted = world.observe(layer, np.where(new, NEW, 0).astype(np.uint32)).predicted
    for start in range(since_s, 300, 20):
        then = new & (world.at_s >= start) & (world.at_s < start + 20)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.03), start


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_neither_a_promotion_nor_its_rollback_makes_everything_seem_clicked_or_nothing(role: str) -> None:
    """A model that has learned of one person in ten is asked of all; ninety seconds later nobody asks it any more."""
    world, layer = World(seconds=480), ClickLayer()
    layer.learner(NEW)
    some = world.users[world.place] % np.uint64(10) == 0
    promoted = (world.at_s >= 300) & (world.at_s < 390)
    heeded = promoted | (some & (role == "canary") & (world.at_s < 390))
    predicted = world.observe(
        layer, np.where(heeded, NEW, 0).astype(np.uint32), some & (role == "shadow") & (world.at_s < 300)
    ).predicted
    for start in range(300, 480, 10):
        then = (world.at_s >= start) & (world.at_s < start + 10)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.025), start
    assert not layer.alarms


@pytest.mark.parametrize("cut", [1, 333])
def test_a_click_is_learned_once_wherever_the_stream_is_cut(cut: int) -> None:
    world, learned = World(seconds=40), ClickModel.learn_one
    whole, parted, clicks = ClickLayer(), ClickLayer(), []

    def counted(model: ClickModel, x: dict[str, float], clicked: bool, weight: float = 1.0) -> None:
        if clicked and model is parted.model:
            clicks.append(weight)
        learned(model, x, clicked, weight)

    world.observe(whole)
    with patch.object(ClickModel, "learn_one", counted):
        for start in range(0, len(world.events), cut):
            world.observe(parted, start=start, end=min(start + cut, len(world.events)))
    assert parted.model.array.tolist() == whole.model.array.tolist()
    assert parted.learned == whole.learned
    answered = world.events["shown_ms"][world.events["source"] == Source.CLICK]
    waited = answered + parted.learning.wait_ms <= world.events["time_ms"][-1]
    assert clicks == [1.0] * np.count_nonzero(waited)
    assert len(clicks) > 20


def test_a_queue_that_is_too_short_does_not_make_everything_seem_clicked() -> None:
    world = World(seconds=60)
    predicted = world.observe(ClickLayer(Learning(pending_max=300))).predicted
    assert predicted[world.at_s >= 50].mean() == pytest.approx(RATE, abs=0.03)


def test_where_too_many_wait_a_click_that_waits_is_learned_before_its_impression_goes() -> None:
    world, layer = World(seconds=20), ClickLayer(Learning(pending_max=300))
    clicked = int(world.observe(layer).outcomes["clicked"].sum())
    waiting = layer.pending.between(layer.pending.head, layer.pending.tail)["open"]
    assert layer.lifts.records([*layer.lifts])[:, 0].sum() == clicked - np.count_nonzero(waiting == 0)
    assert clicked > 50


def test_what_was_lost_of_the_queue_is_let_go_when_it_has_waited() -> None:
    layer, world = ClickLayer(), World(seconds=40)
    layer.reopen(0, np.full(3, LOST, dtype=PENDING), 0)
    world.observe(layer)
    assert layer.pending.asked > 3
    assert layer.lifts.records([*layer.lifts])[:, 0].sum() > 0
