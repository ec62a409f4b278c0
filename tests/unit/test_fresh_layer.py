"""A click layer, or a model that is new to one, knows clicks before it knows what was not clicked."""

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from scoring.events import Source
from scoring.feedback import ClickLayer, Learning, Observed
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from scoring.learner import FRESH_WAITS, Age, Learner
from scoring.pending import PENDING
from streams.columns import columns
from streams.lanes.learner_rows import LearnerRow
from streams.wire import Click, Impression
from tests.builders import START_MS

RATE, A_SECOND = 0.05, 100
NEW = 7
"""The number of the model that three people in ten come to be scored by."""


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

    def observe(self, layer: ClickLayer, model: npt.NDArray[np.uint32]) -> Observed:
        logit = np.full(len(self.place), np.log(RATE / (1 - RATE)), dtype=np.float32)
        context = np.zeros((len(self.place), CONTEXT_DIM), dtype=np.float32)
        control = np.zeros(len(self.events), dtype=bool)
        return layer.observe(self.events, self.users, control, Impressions(self.place, logit, context, model))


def test_a_shop_that_has_just_opened_is_not_thought_to_click_everything() -> None:
    world = World(seconds=60)
    predicted = world.observe(ClickLayer(), np.zeros(len(world.place), dtype=np.uint32)).predicted
    for start in range(0, 60, 10):
        then = (world.at_s >= start) & (world.at_s < start + 10)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.03), start


def test_a_model_that_is_new_in_a_running_layer_is_not_either() -> None:
    world, layer, since_s = World(seconds=300), ClickLayer(), 120
    new = (world.at_s >= since_s) & (world.users[world.place] % np.uint64(10) < 3)
    predicted = world.observe(layer, np.where(new, NEW, 0).astype(np.uint32)).predicted
    for start in range(since_s, 300, 20):
        then = new & (world.at_s >= start) & (world.at_s < start + 20)
        assert predicted[then].mean() == pytest.approx(RATE, abs=0.03), start


def test_whether_a_click_waits_is_a_matter_of_age_and_of_chance() -> None:
    wait_ms = 30_000
    fresh_ms = FRESH_WAITS * wait_ms

    def waiting(age: Age, at_ms: int, wait_ms: int = wait_ms) -> float:
        rows = np.zeros(4_000, dtype=PENDING)
        rows["key"], rows["shown_ms"] = np.arange(len(rows)), at_ms
        return float(np.mean([age.holds_back(tuple(row), wait_ms) for row in rows.tolist()]))

    shown = Age()
    shown.begin(START_MS)
    shown.begin(START_MS + fresh_ms)
    assert [waiting(shown, START_MS + at_ms) for at_ms in (-1, 0, fresh_ms)] == [1.0, 1.0, 0.0]
    assert waiting(shown, START_MS + fresh_ms // 4) == pytest.approx(0.75, abs=0.03)
    assert waiting(shown, START_MS + 1, wait_ms=0) == 0.0, "where nothing waits no click does"
    assert waiting(Age(0), START_MS) == 0.0, "what was kept before this was known is old"


@pytest.mark.parametrize("cut", [1, 500, 3_333])
def test_a_click_that_waits_is_learned_once_wherever_the_stream_is_cut(cut: int) -> None:
    world, model = World(seconds=40), np.zeros(4_000, dtype=np.uint32)
    whole, parted = ClickLayer(), ClickLayer()
    world.observe(whole, model)
    logit = np.full(len(world.place), np.log(RATE / (1 - RATE)), dtype=np.float32)
    context = np.zeros((len(world.place), CONTEXT_DIM), dtype=np.float32)
    for start in range(0, len(world.events), cut if cut > 1 else len(world.events)):
        end = min(start + cut, len(world.events)) if cut > 1 else len(world.events)
        here = (world.place >= start) & (world.place < end)
        parted.observe(
            world.events[start:end],
            world.users[start:end],
            np.zeros(end - start, dtype=bool),
            Impressions(world.place[here] - start, logit[here], context[here], model[here]),
        )
    assert parted.model.array.tolist() == whole.model.array.tolist()
    assert parted.learned == whole.learned


def test_where_too_many_wait_a_click_that_waits_is_learned_before_its_impression_goes() -> None:
    world = World(seconds=20)
    model = np.zeros(len(world.place), dtype=np.uint32)
    layer = ClickLayer(Learning(pending_max=300))
    world.observe(layer, model)
    waiting = layer.pending.between(layer.pending.head, layer.pending.tail)["open"]
    assert layer.lifts.records([*layer.lifts])[:, 0].sum() == layer.learned - np.count_nonzero(waiting == 0)
    assert layer.learned > 100


def test_how_old_a_learner_is_is_kept_and_one_that_was_kept_without_is_old() -> None:
    kept = msgspec.msgpack.encode(LearnerRow.of(Learner(age=Age(START_MS))))
    assert msgspec.msgpack.decode(kept, type=LearnerRow).learner().age == Age(START_MS)
    former = msgspec.msgpack.decode(kept)
    del former["since_ms"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(former), type=LearnerRow).learner().age == Age(0)
