"""A lane's click layer as its changelog keeps it, and as the pure step drives it."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_models.examples import Examples, collect, in_time_order
from onnx_models.trial import Stream
from scoring.attention import AttentionModel, load
from scoring.calibration import PERSONAL
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules
from scoring.clicks import LIFT_PRIOR
from scoring.engine import Engine
from scoring.events import EVENT
from scoring.examination import assumed
from scoring.exploration import EXPLORATIONS, Explore
from scoring.exposure import apply_and_score
from scoring.feedback import Learning
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM, ModelInputs
from scoring.policies import Policy
from scoring.pool import Pool
from scoring.rates import RATES_DIM, RateTable
from scoring.rows import RowStore
from streams.explain import recompute
from streams.lanes.clicks import KEY, LaneClicks, person_key, spread
from streams.logs import Event, in_order
from streams.step import LaneState, Slice, Step
from streams.wire import Click, Decision, Impression, Outcome
from tests.builders import START_MS, click, columns_of, entry, impression, made_up_log, records
from tests.unit.keeping import LEARNING, SHOP, keep, observe, state, stream
from tests.unit.slices import slice_of


@pytest.fixture(scope="module")
def model() -> AttentionModel:
    """The demo shop's, as if it had been trained before all of these tests' events."""
    found = load()
    return replace(found, manifest=msgspec.structs.replace(found.manifest, data_to_ms=-1))


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(1, 40), st.lists(st.integers(0, 30), max_size=3), st.booleans())
def test_a_layer_restored_between_any_two_slices_goes_on_exactly_as_if_it_had_never_ended(
    seed: int, size: int, ends: list[int], from_snapshot: bool
) -> None:
    events, users = stream(seed, 150)
    whole, other, kept = LaneClicks(LEARNING), LaneClicks(LEARNING), dict[bytes, bytes]()
    for number, start in enumerate(range(0, len(events), size)):
        cut = slice(start, start + size)
        observe(whole, events[cut], users[cut])
        keep(kept, observe(other, events[cut], users[cut]))
        if number in ends:
            other = LaneClicks.restore(LEARNING, other.parts() if from_snapshot else kept)
    assert state(other) == state(whole)
    restored = LaneClicks.restore(LEARNING, kept)
    assert state(restored) == state(whole)
    assert whole.layer.learned > 0
    restored.commit(SHOP)
    context, everything = np.zeros((1, CONTEXT_DIM), dtype=np.float32), np.arange(len(SHOP))[None]
    now, before = (one.calibrator.calibration(users[:1], context, everything) for one in (restored, whole))
    assert (now.lift.tolist(), now.evidence.tolist()) == (before.lift.tolist(), before.evidence.tolist())


def test_what_has_left_the_queue_leaves_the_changelog() -> None:
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    events, users = stream(3, 3_000)
    for start in range(0, len(events), 10):
        keep(kept, observe(clicks, events[start : start + 10], users[start : start + 10]))
    assert len(kept) <= 1 + len(SHOP) + 5 + 10  # the model, the ads, the people, and chunks of what may be open


def test_what_a_crash_without_transactions_has_lost_of_the_queue_is_neither_judged_nor_told_nor_learned() -> None:
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    events, users = stream(3, 120)
    for start in range(0, 100, 10):
        changes = observe(clicks, events[start : start + 10], users[start : start + 10])
        if start > 50 and any(value is None for _, value in changes):
            assert changes[-1][0] == KEY
            keep(kept, changes[:-1])  # chunks have got their tombstones, and the row that says so is not written
            break
        keep(kept, changes)

    restored = LaneClicks.restore(LEARNING, kept)
    layer, learned, held = restored.layer, restored.layer.learned, len(restored.layer.pending)
    rows = layer.pending.between(layer.pending.head, layer.pending.tail)
    lost = int((rows["key"] == 0).sum())
    assert 0 < lost < held
    assert state(LaneClicks.restore(LEARNING, restored.parts())) == state(restored)  # and from a snapshot
    end = events[-1:].copy()
    end["stream_ms"] = end["time_ms"] = events["time_ms"].max() + 10 * LEARNING.window_ms
    nothing = Impressions(np.zeros(0, dtype=np.int64), np.zeros(0, np.float32), np.zeros((0, CONTEXT_DIM), np.float32))
    observed = layer.observe(end, users[-1:], users[-1:] == 2, nothing)
    assert len(observed.judged) == held - lost
    assert (observed.judged["predicted"] > 0).all()
    assert len(observed.outcomes) == int(rows["open"].sum()) == layer.learned - learned


def test_a_layer_kept_in_another_layout_begins_anew() -> None:
    clicks = LaneClicks(LEARNING)
    observe(clicks, *stream(1, 100))
    row = clicks.parts()[KEY].replace(b"layout", b"layouT")
    with pytest.raises(msgspec.ValidationError):
        LaneClicks.restore(LEARNING, {KEY: row})
    other = msgspec.msgpack.encode(msgspec.msgpack.decode(clicks.parts()[KEY]) | {"layout": "another"})
    assert state(LaneClicks.restore(LEARNING, {KEY: other})) == state(LaneClicks(LEARNING))


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_what_another_layout_left_is_gone_once_the_layer_that_began_anew_is_kept(from_snapshot: bool) -> None:
    """It may have other fields, and records and chunks of any size: none of it is read, then or later."""
    events, users = stream(1, 120)
    users[:60][users[:60] == 1] = id64(b"user-1")
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:60], users[:60]))
    assert person_key(b"user-1") in kept
    kept = {key: value + b"\0" for key, value in kept.items()} | {
        KEY: msgspec.msgpack.encode({"layout": "another", "head": "x"}),
        KEY + b"/open/" + (7).to_bytes(8, "big"): b"no chunk",
    }
    begun = LaneClicks.restore(LEARNING, kept)
    keep(kept, begun.forget([b"user-1"]))
    if from_snapshot:
        begun = LaneClicks.restore(LEARNING, begun.parts())
        assert person_key(b"user-1") not in begun.parts()
    new = LaneClicks(LEARNING)
    for cut in (slice(60, 90), slice(90, 120)):
        keep(kept, observe(begun, events[cut], users[cut]))
        observe(new, events[cut], users[cut])
        assert state(LaneClicks.restore(LEARNING, kept)) == state(begun) == state(new)
        assert kept.keys() == spread(begun.parts()).keys() == spread(new.parts()).keys()


def test_a_person_is_forgotten_by_a_changelog_and_by_a_snapshot_and_what_was_open_brings_nobody_back() -> None:
    user = b"user-1"
    events, users = stream(3, 200)
    users[users == 1] = id64(user)
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    keep(kept, observe(clicks, events[:100], users[:100]))
    snapshot = spread(clicks.parts())
    assert id64(user) in set(clicks.layer.people)
    assert person_key(user) in kept.keys() & snapshot.keys()

    assert LaneClicks.restore(LEARNING, dict(sorted(kept.items()))).parts() == clicks.parts()
    gone = clicks.forget([user, b"nobody"])
    assert gone == [(person_key(user), None), (person_key(b"nobody"), None)]
    for parts in (kept, snapshot):
        keep(parts, gone)
        restored = LaneClicks.restore(LEARNING, parts)
        assert id64(user) not in set(restored.layer.people)
        assert len(restored.layer.people) > 2
    rest = events[100:].copy()
    of = users[100:] != id64(user)
    changes = observe(clicks, rest[of], users[100:][of])
    assert person_key(user) not in dict(changes)
    assert id64(user) not in set(clicks.layer.people)
    assert clicks.layer.learned > 100


# --- the step drives it ------------------------------------------------------------------------------------------


def engine_of(model: AttentionModel, explore: Explore = "plackett-luce") -> Engine:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert(
        [entry(f"ad-{n}", category=f"c{n % 7}/s{n % 21}", brand=f"b{n % 3}", bid_micros=100 + n) for n in range(20)]
    )
    return Engine(shop, model, Policy(control_share=0.3, explore=explore))


def run(engine: Engine, events: Sequence[Event], size: int) -> tuple[LaneState, list[Outcome], list[Decision]]:
    """The step over a log, in slices of ``size``."""
    given_ = records(events)
    step = Step(engine, lambda _: 0, 0, 10**12, learning=Learning(window_ms=40_000))
    lane = LaneState(0, ("a", "b"), 1, clicks=LaneClicks(Learning(window_ms=40_000)))
    outcomes, decisions = [], []
    for start in range(0, len(given_), size):
        taken = given_[start : start + size]
        order = np.array([each.topic == "clicks" for each in taken], dtype=np.uint8)
        newest_ms = max(each.timestamp for each in taken)
        effects = step.run(lane, Slice(taken, order, (newest_ms, newest_ms)), 2**42)
        outcomes += [msgspec.json.decode(m.value or b"", type=Outcome) for m in effects.messages["outcomes"]]
        decisions += [msgspec.json.decode(m.value or b"", type=Decision) for m in effects.messages["decisions"]]
    return lane, outcomes, decisions


def test_outcomes_and_layer_are_those_of_the_stream_wherever_it_is_cut(model: AttentionModel) -> None:
    events = made_up_log(seed=4, events=400, surface="feed").events
    whole, expected, _ = run(engine_of(model), events, len(events))
    parts, found, _ = run(engine_of(model), events, 7)
    assert [(each.event, each.clicked) for each in found] == [(each.event, each.clicked) for each in expected]
    assert [each.ends_ms for each in found] == [each.ends_ms for each in expected]
    assert all(each.ends_ms >= each.shown_ms + 40_000 for each in found)
    assert all((each.known_ms >= each.ends_ms) != each.clicked for each in found)
    assert [each.predicted for each in found] == pytest.approx([each.predicted for each in expected], abs=1e-5)
    assert parts.clicks.layer.model.array == pytest.approx(whole.clicks.layer.model.array, abs=1e-4)
    answers = [each for each in events if isinstance(each, Click) and each.kind != "view"]
    answered = {(each.user_id, each.ad_id, each.impression_time_ms) for each in answers}
    assert sum(each.clicked for each in found) == len(answered) > 0


def pages(seed: int, count: int = 60, users: int = 12) -> list[Event]:
    """Pages of up to eight ads each, shown in one moment or one after the other within it; some are clicked."""
    rng, out, time_ms = np.random.default_rng(seed), list[Event](), START_MS
    for _ in range(count):
        time_ms += int(rng.choice([700, 4_000, 90_000]))
        user, apart_ms = f"user-{rng.integers(users)}", int(rng.choice([0, 0, 90]))
        for slot, ad in enumerate(rng.choice(20, rng.integers(1, 9), replace=False).tolist()):
            shown_ms = time_ms + apart_ms * slot
            out.append(impression(user, f"ad-{ad}", shown_ms, slot=slot, surface="feed"))
            if rng.random() < 0.2:
                told = {"impression_time_ms": shown_ms, "surface": "feed"}
                out.append(click(user, f"ad-{ad}", shown_ms + int(rng.choice([300, 5_000])), **told))
    return in_order(out)


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_layer_is_told_what_training_is_told_of_pages_too_wherever_the_stream_is_cut(
    model: AttentionModel, seed: int, size: int
) -> None:
    events, engine = pages(seed), engine_of(model)
    store, other, rates = RowStore(), RowStore(), RateTable()
    columns = columns_of(store, events)
    trained = collect(columns_of(other, events), other, engine.catalogue, rates=rates).examples
    users = np.array([id64(store.users[row] or b"") for row in columns["row"].tolist()], dtype=np.uint64)
    served, logits, contexts = RateTable(), list[np.ndarray](), list[np.ndarray]()
    served.follow(engine.catalogue)
    for start in range(0, len(columns), size):
        cut = slice(start, start + size)
        of = (store, columns[cut], users[cut], engine.models, Rules(), engine.scorers, served)
        told = apply_and_score(*of).impressions
        logits.append(told.logit)
        contexts.append(told.context)
    np.testing.assert_allclose(np.concatenate(contexts), trained.context, atol=1e-6)
    assert np.concatenate(logits) == pytest.approx(scores(engine, trained), abs=1e-4)


def disturbed(events: list[Event]) -> list[Event]:
    """With what is nobody's attention: a script's impressions and clicks, and impressions again under other ids."""
    again = [msgspec.structs.replace(event, event_id=f"again-{event.event_id}") for event in events[::9]]
    moments = [events[len(events) // 2].time_ms + 60 * at for at in range(500)]
    script: list[Event] = []
    for at, time_ms in enumerate(moments):
        script.append(impression("script", f"ad-{at % 20}", time_ms, slot=0, surface="feed"))
        script.append(click("script", f"ad-{at % 20}", time_ms + 9, impression_time_ms=time_ms, surface="feed"))
    return in_order([*events, *script, *(event for event in again if isinstance(event, Impression))])


@pytest.mark.parametrize("size", [7, 10_000])
@pytest.mark.parametrize("events", [pages(3, 150, 20), disturbed(pages(3, 150, 20))], ids=["sound", "disturbed"])
def test_the_worker_predicts_what_evaluation_does_impression_by_impression(
    model: AttentionModel, events: list[Event], size: int
) -> None:
    engine = replace(engine_of(model), policy=Policy(control_share=0.0))
    _, outcomes, _ = run(engine, events, size)
    store = RowStore()
    ordered = in_time_order(columns_of(store, events), store)
    examples, place, *_ = collected = collect(ordered, store, engine.catalogue)
    users = np.array([id64(store.users[row] or b"") for row in ordered["row"].tolist()], dtype=np.uint64)
    stream = Stream.of(ordered, users, collected)
    _, evaluated = stream.observe(scores(engine, examples), examples, Learning(window_ms=40_000))
    by_event = dict(zip(ordered["event"][place].tolist(), evaluated.predicted.tolist(), strict=True))
    assert len(by_event) == len(place)
    assert len(outcomes) > 0.9 * len(by_event)
    for outcome in outcomes:
        assert outcome.predicted == pytest.approx(by_event[int(outcome.event, 16)], abs=1e-6)


def scores(engine: Engine, examples: Examples) -> np.ndarray:
    """What the engine's model says of examples, one candidate each."""
    learned, features = engine.catalogue.learned, engine.catalogue.features
    met = examples.history >= 0
    given = ModelInputs(
        history=learned[np.where(met, examples.history, 0)] * met[:, :, None],
        history_age=examples.age,
        history_kind=examples.kind.astype(np.int64),
        history_mask=met.astype(np.float32),
        interest=examples.interest,
        candidates=learned[examples.item][:, None],
        candidate_features=features[examples.item][:, None],
        candidate_stats=examples.stats[:, None],
        context=examples.context,
    )
    logit, _ = engine.model.score(given)
    return logit[:, 0]


@pytest.mark.parametrize("explore", EXPLORATIONS)
def test_a_placement_of_a_layer_that_has_learned_is_computed_again_byte_for_byte(
    model: AttentionModel, explore: Explore
) -> None:
    engine = engine_of(model, explore)
    engine.catalogue.tones.take(engine.catalogue.ad[::2], np.array([[30, n % 10 / 10] for n in range(10)]))
    lane, outcomes, decisions = run(engine, made_up_log(seed=5, events=500, surface="feed").events, 50)
    assert len(outcomes) > 100
    weights = np.frombuffer(decisions[-1].weights)
    assert abs(weights[PERSONAL.index("bias")]) > 0.01
    assert np.frombuffer(decisions[-1].lifts, dtype=np.float32).any()
    assert np.frombuffer(decisions[-1].rates, dtype=np.float16).reshape(-1, RATES_DIM).any(axis=0).all()
    curve = np.frombuffer(decisions[-1].examined)
    assert curve[0] == 1.0
    assert (curve != assumed(len(curve)))[1:].any()
    known = np.frombuffer(decisions[-1].evidence, dtype=np.float32)
    assert (known > LIFT_PRIOR).any() if explore != "plackett-luce" else not len(known)
    for decision in decisions[-30:]:
        assert recompute(decision, engine_of(model)).differences == []
    assert lane.clicks.layer.learned == len(outcomes)


def test_what_the_model_was_trained_on_is_not_learned(model: AttentionModel) -> None:
    events = made_up_log(seed=5, events=200).events
    trained = replace(
        model, manifest=msgspec.structs.replace(model.manifest, data_from_ms=0, data_to_ms=events[-1].time_ms)
    )
    lane, outcomes, _ = run(engine_of(trained), events, 50)
    assert outcomes == []
    assert lane.clicks.layer.learned == 0


def told_of_all(clicks: LaneClicks) -> tuple[list[list[float]], list[list[float]]]:
    """What the lane's own and what all lanes' counts tell of every ad."""
    everything = np.arange(len(SHOP))
    return clicks.rates.at(everything).tolist(), clicks.calibrator.rated(everything).tolist()


def test_a_lane_tells_the_others_what_its_layer_has_learned_where_layers_are_shared(model: AttentionModel) -> None:
    taken, told = slice_of(records(made_up_log(seed=5, events=60).events)), []
    for pool in (Pool(), None):
        step = Step(engine_of(model), lambda _: 0, 0, 10**12, pool=pool)
        told.append(step.run(LaneState(0, ("a", "b"), 1), taken, 2**42).messages["click-layers"])
    assert told[0][0].key == b"0"
    assert told[1] == []


def test_what_was_shown_and_clicked_is_kept_and_goes_on_where_it_stood(model: AttentionModel) -> None:
    events = made_up_log(seed=4, events=400, surface="feed").events
    lane, _, _ = run(engine_of(model), events, 30)
    engine = engine_of(model)
    restored = LaneClicks.restore(None, lane.clicks.parts())
    restored.apply(RowStore(), np.zeros(0, dtype=EVENT), engine, Rules())
    restored.commit(engine.catalogue)
    own, served = told_of_all(restored)
    assert (own, served) == told_of_all(lane.clicks)
    assert own == served  # nobody else has told anything
    assert np.any(own)
    shown = sum(not isinstance(each, Click) for each in events)
    assert lane.clicks.layer.lifts.arrays()[1][:, 2].sum() == shown


def test_a_record_of_a_former_version_tells_lifts_and_no_counts(model: AttentionModel) -> None:
    lane, _, _ = run(engine_of(model), made_up_log(seed=4, events=400, surface="feed").events, 30)
    former = {key: value[:16] if b"/ad/" in key else value for key, value in lane.clicks.parts().items()}
    ids, records_ = LaneClicks.restore(None, former).layer.lifts.arrays()
    kept = lane.clicks.layer.lifts.records(ids.tolist())
    assert records_[:, :2].tolist() == kept[:, :2].tolist()
    assert kept[:, 2:].any()
    assert not records_[:, 2:].any()
