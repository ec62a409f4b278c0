"""What lanes' click layers tell one another, and what a lane serves that has heard it."""

from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue
from scoring.clicks import CAUTION, FEATURES, LIFT_PRIOR, ClickModel
from scoring.events import EVENT, Events, Kind, Source
from scoring.examination import Examination
from scoring.feedback import ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM, SURFACES
from scoring.pool import Learned, Others, Pool
from scoring.rates import RateTable
from streams.feeds.layers import AD, BUCKETS, LAYOUT, SHARE_MS, hear, shares
from streams.lanes.clicks import LaneClicks
from streams.message import Message
from streams.settings import Settings
from tests.builders import Record, catalogue

SHOP = catalogue(300)
F = len(FEATURES)
LEARNING = Learning(window_ms=1_000)
(LEAST_BATCH_BYTES,) = (bound.ge for bound in Settings.model_fields["batch_bytes"].metadata if hasattr(bound, "ge"))


def model_of(weight: float, evidence: float) -> ClickModel:
    model = ClickModel()
    model.restore(np.full(F, weight), np.full(F, CAUTION + evidence))
    return model


def told(weight: float, evidence: float, number: int = 0) -> Learned:
    return Learned({number: (np.full(F, weight), np.full(F, CAUTION + evidence))}, np.zeros((2, 0)))


def test_a_lane_that_hears_nothing_serves_what_it_has_learned() -> None:
    pool, model, slots = Pool(), model_of(0.3, 5), Examination()
    slots.learn(2, 3, 10)
    pool.tell(4, told(9, 9))
    pool.tell_ads(4, SHOP.ad[:1], np.array([[1.0, 2.0, 3.0, 4.0]]))
    others = pool.others(4)  # what it told itself is no news to it
    assert others.weights(0, model).tolist() == model.array.tolist()
    assert others.examined(slots).tolist() == slots.curve.tolist()
    assert others.records(SHOP.ad[:1].tolist()).tolist() == [[0, 0, 0, 0]]
    assert others.news() == set(SHOP.ad[:1].tolist())  # to a new reader every ad is, whoever told of it
    assert others.news() == set()


def test_a_weight_is_the_mean_of_all_lanes_by_their_evidence_for_it() -> None:
    pool, own = Pool(), model_of(0.2, 30)
    pool.tell(1, told(0.6, 10))
    pool.tell(2, told(-5.0, 0))  # nothing learned
    pool.tell(3, told(7.0, 50, number=8))  # of another attention model
    assert pool.others(0).weights(0, own) == pytest.approx((0.2 * 30 + 0.6 * 10) / 40)
    assert pool.others(0).weights(8, model_of(0.2, 0)) == pytest.approx(7.0)
    assert pool.others(0).weights(0, model_of(0.1, 0)) == pytest.approx(0.6)


def test_where_nobody_has_evidence_a_weight_stays() -> None:
    pool = Pool()
    pool.tell(1, told(3.0, 0))
    assert pool.others(0).weights(0, model_of(0.4, 0)).tolist() == [0.4] * F


def test_clicks_of_ads_and_slots_are_added_up_and_the_last_word_of_a_lane_counts() -> None:
    pool, own = Pool(), Examination()
    own.learn(1, 5, 10)
    told_of = ((1, [[1, 2, 9, 1], [3, 4, 9, 2]]), (2, [[10, 20, 8, 3], [0] * 4]), (1, [[2, 3, 7, 1], [3, 4, 9, 2]]))
    for lane, records in told_of:
        pool.tell_ads(lane, SHOP.ad[:2], np.array(records, dtype=float))
    pool.tell(1, Learned({}, np.array([[10.0, 2.0], [20.0, 25.0]])))
    others = pool.others(0)
    assert others.records([*SHOP.ad[:3].tolist(), 77]).tolist() == [[12, 23, 15, 4], [3, 4, 9, 2], [0] * 4, [0] * 4]
    assert pool.others(2).records(SHOP.ad[:1].tolist()).tolist() == [[2, 3, 7, 1]]
    joined = Examination()
    joined.restore(np.array([[10.0, 7.0], [20.0, 35.0]]))
    assert others.examined(own).tolist() == joined.curve.tolist()
    declared = Examination((1.0, 0.5))
    assert others.examined(declared).tolist() == declared.curve.tolist()


def test_news_is_what_has_changed_and_is_told_once() -> None:
    pool = Pool()
    others = pool.others(0)
    for _ in range(2):
        pool.tell_ads(1, SHOP.ad[:2], np.array([[0.0, 0.0, 1.0, 0.0], [0.0] * 4]))
    assert others.news() == {int(SHOP.ad[0])}
    assert others.news() == set()
    assert pool.others(1).news() == {int(ad) for ad in SHOP.ad[:2]}
    pool.tell_ads(1, SHOP.ad[:2], np.ones((2, 4)))
    assert pool.others(1).news() == set()  # its own words are none to a lane that has heard all


# --- as lanes tell it ---------------------------------------------------------------------------------------------


def stream(seed: int, count: int, lifts: np.ndarray | None = None) -> tuple[Events, np.ndarray, np.ndarray]:
    """Impressions of the shop's ads, two a second, of which every fourth or so is clicked at once; users; log-odds."""
    rng = np.random.default_rng(seed)
    lifts = np.zeros(len(SHOP)) if lifts is None else lifts
    slot = rng.integers(len(SHOP), size=count)
    logit = rng.normal(-1.0, 0.7, size=count)
    clicked = rng.random(count) < 1 / (1 + np.exp(-(0.6 * logit + 0.4 + lifts[slot])))
    events = np.zeros(count + int(clicked.sum()), dtype=EVENT)
    order = np.sort(np.concatenate([np.arange(count) * 2, np.flatnonzero(clicked) * 2 + 1]))
    shown = order // 2
    events["time_ms"] = events["shown_ms"] = events["stream_ms"] = 500 * (1 + shown)
    events["ad"], events["event"], events["slot"] = SHOP.ad[slot[shown]], np.arange(len(events)) + 1, -1
    is_click = order % 2 == 1
    events["kind"] = np.where(is_click, Kind.CLICKED, Kind.SHOWN)
    events["source"], events["answers"] = np.where(is_click, Source.CLICK, Source.IMPRESSION), is_click
    users = 1 + rng.integers(1_000, size=count).astype(np.uint64)
    return events, users[shown], logit


def context(count: int) -> np.ndarray:
    out = np.zeros((count, CONTEXT_DIM), dtype=np.float32)
    out[:, -SURFACES] = 1
    return out


def observe(clicks: LaneClicks, events: Events, users: np.ndarray, logit: np.ndarray, others: Others | None) -> None:
    place = np.flatnonzero(events["source"] == Source.IMPRESSION)
    seen = Impressions(place, logit.astype(np.float32), context(len(place)))
    clicks.layer.observe(events, users, np.ones(len(events), dtype=bool), seen)
    clicks.commit(SHOP, others)


def lane_of(seed: int, count: int = 400) -> LaneClicks:
    out = LaneClicks(LEARNING)
    out.layer.lifts.count(SHOP.ad, np.column_stack([np.ones(len(SHOP)), np.arange(len(SHOP)) == seed]))
    observe(out, *stream(seed, count), None)
    return out


def record(message: Message, offset: int = 0, partition: int = 0) -> Record:
    return Record("click-layers", partition, offset, 0, message.key, message.value)


def heard(pool: Pool, messages: Sequence[Message]) -> int:
    return hear(pool, [record(message, offset) for offset, message in enumerate(messages)])


def served(clicks: LaneClicks) -> tuple[list[float], list[float], list[float]]:
    everything = np.arange(len(SHOP))[None]
    found = clicks.calibrator.calibration(np.zeros(1, np.uint64), context(1), everything)
    return found.weights[0].tolist(), found.lift[0].tolist(), found.evidence[0].tolist()


def test_a_lane_serves_by_what_the_others_have_told() -> None:
    pool, own, other = Pool(), lane_of(1), lane_of(2)
    alone = served(own)
    assert heard(pool, other.share(1)) == 0
    own.commit(SHOP, pool.others(0))
    weights, lift, evidence = served(own)
    records = own.layer.lifts.records(SHOP.ad.tolist()) + other.layer.lifts.records(SHOP.ad.tolist()) + LIFT_PRIOR
    assert lift == pytest.approx(np.log(records[:, 0] / records[:, 1]), abs=1e-6)
    assert evidence == pytest.approx(records[:, 0])
    rates = RateTable()
    rates.follow(SHOP)
    rates.set(np.arange(len(SHOP)), records[:, 2:] - LIFT_PRIOR)
    assert own.calibrator.rated(np.arange(len(SHOP))).tolist() == rates.at(np.arange(len(SHOP))).tolist()
    assert rates.total.tolist() == [2 * len(SHOP), 2]
    assert weights != alone[0]
    assert lift != alone[1]
    one, two = own.layer.model, other.layer.model
    by = [one.caution - CAUTION, two.caution - CAUTION]
    assert weights[0] == pytest.approx(np.average([one.array[0], two.array[0]], weights=[by[0][0], by[1][0]]))
    assert own.layer.model.array.tolist() == lane_of(1).layer.model.array.tolist()  # it learned nothing from it


@cache
def words() -> list[list[Message]]:
    """What three lanes tell, each in two parts."""
    whole = [lane_of(seed, 40).share(seed) for seed in range(1, 4)]
    return [part for word in whole for part in (word[:1], word[1:])]


@cache
def served_after(*numbers: int) -> tuple[list[float], list[float], list[float]]:
    """What a lane serves that has heard these of the `words`, in this order."""
    pool, own = Pool(), lane_of(9, 40)
    for number in numbers:
        heard(pool, words()[number])
    own.commit(SHOP, pool.others(0))
    return served(own)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=4))
def test_late_doubled_and_shuffled_words_change_nothing(order: list[int], again: list[int]) -> None:
    for found, wanted in zip(served_after(*order, *again), served_after(*range(6)), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6)


def test_a_lane_speaks_once_in_ten_seconds_of_its_time_of_what_it_has_touched_since() -> None:
    clicks = LaneClicks(LEARNING)
    events, users, logit = stream(3, 100)
    shown = np.cumsum(events["source"] == Source.IMPRESSION)

    def until(time_ms: int, since_ms: int) -> None:
        part = (events["time_ms"] > since_ms) & (events["time_ms"] <= time_ms)
        seen = np.unique(shown[part]) - 1
        observe(clicks, events[part], users[part], logit[seen], None)

    until(SHARE_MS - 1_000, 0)
    assert clicks.share(5) == []
    until(SHARE_MS, SHARE_MS - 1_000)
    told = clicks.share(5)
    assert told[0].key == b"5"
    assert clicks.share(5) == []
    until(2 * SHARE_MS, SHARE_MS)
    before = clicks.layer.lifts.arrays()[0]
    later = clicks.share(5)
    touched = {int(message.key.split(b"-")[1]) for message in later[1:] if message.key}
    outcomes = events["ad"][(events["time_ms"] > SHARE_MS - 1_000) & (events["time_ms"] <= 2 * SHARE_MS)]
    assert touched
    assert touched <= {int(ad % BUCKETS) for ad in outcomes}
    assert touched < {int(ad % BUCKETS) for ad in before.tolist()}  # and not of all that it knows
    for message in later[1:]:
        assert message.key is not None
        held = np.frombuffer(message.value or b"", dtype=AD)["ad"]
        assert set(held.tolist()) == {ad for ad in before.tolist() if ad % BUCKETS == int(message.key.split(b"-")[1])}


def test_a_new_owner_tells_again_what_its_former_may_not_have_told() -> None:
    first = lane_of(4)
    heard_before, heard_after = Pool(), Pool()
    restored = LaneClicks.restore(LEARNING, first.parts())
    heard(heard_before, first.share(2))
    heard(heard_after, restored.share(2))
    ads = SHOP.ad.tolist()
    assert heard_after.others(0).records(ads).tolist() == heard_before.others(0).records(ads).tolist()
    assert heard_after.others(0).records(ads).any()


def test_of_a_bucket_that_fits_no_batch_the_ads_that_were_shown_most_are_told() -> None:
    layer = ClickLayer()
    count = LEAST_BATCH_BYTES // AD.itemsize + 9
    ads = BUCKETS * np.arange(1, count + 1, dtype=np.uint64)  # all in one
    layer.lifts.put(ads, np.arange(4 * count, dtype=np.float64).reshape(-1, 4)[::-1])
    _, word = shares(3, layer, {int(ads[-1])})
    assert LEAST_BATCH_BYTES - 10_000 < word.size <= LEAST_BATCH_BYTES - 1_024
    told = np.frombuffer(word.value or b"", dtype=AD)["ad"]
    assert sorted(told.tolist()) == ads[: len(told)].tolist()


def test_what_is_no_word_of_a_layer_is_refused_and_changes_nothing() -> None:
    pool = Pool()
    row = np.zeros(1, dtype=AD)
    row["record"] = np.nan
    negative = np.zeros(1, dtype=AD)
    negative["record"] = -1
    weights, short, sums = np.zeros(F).tobytes(), np.zeros(3).tobytes(), np.full(F, CAUTION)

    def layer(**fields: object) -> bytes:
        whole = {"layout": LAYOUT, "models": {0: (weights, sums.tobytes())}, "slots": (b"", b"")}
        return msgspec.msgpack.encode(whole | fields)

    refused = [
        (b"1", b"{"),
        (b"one", layer()),
        (b"", layer()),
        (b"1", layer(layout="another")),
        (b"1", layer(models={0: (short, short)})),
        (b"1", layer(models={0: (weights, short)})),
        (b"1", layer(models={0: (weights, (-sums).tobytes())})),
        (b"1", layer(models={0: (weights, (sums / 2).tobytes())})),
        (b"1", layer(models={0: (b"1234567", sums.tobytes())})),
        (b"1", layer(models={0: (np.full(F, np.inf).tobytes(), sums.tobytes())})),
        (b"1", layer(slots=(short, b""))),
        (b"1", layer(slots=(np.zeros(101).tobytes(), np.zeros(101).tobytes()))),
        (b"1-3", row.tobytes()),
        (b"1-3", negative.tobytes()),
        (b"1-3", b"12345"),
        (b"x-3", np.zeros(1, dtype=AD).tobytes()),
    ]
    assert hear(pool, [Record("click-layers", 0, at, 0, *each) for at, each in enumerate(refused)]) == len(refused)
    assert (pool.learned, pool.records) == ({}, {})
    former = Record("click-layers", 0, 0, 0, b"1/3", np.zeros(3).tobytes())
    assert hear(pool, [former, Record("click-layers", 0, 0, 0, b"1", layer())]) == 0
    assert pool.records == {}
    assert pool.learned.keys() == {1}


def test_of_an_ad_that_a_buckets_new_word_does_not_name_nothing_counts_as_in_a_worker_that_has_just_started() -> None:
    ads = BUCKETS * np.arange(1, 4, dtype=np.uint64)
    records = np.array([[20.0, 4, 9, 2], [1, 2, 3, 4], [0, 0, 5, 0]])
    first, elsewhere = np.zeros(3, dtype=AD), np.zeros(1, dtype=AD)
    first["ad"], first["record"] = ads, records
    elsewhere["ad"], elsewhere["record"] = ads[0] + 1, records[0]
    pool, started = Pool(), Pool()
    heard(pool, [Message(key, first.tobytes()) for key in (b"1-0", b"2-0")] + [Message(b"1-1", elsewhere.tobytes())])
    others = pool.others(0)
    others.news()

    heard(pool, [Message(b"1-0", first[1:2].tobytes())])

    heard(started, [Message(b"1-0", first[1:2].tobytes()), Message(b"2-0", first.tobytes())])
    assert others.records(ads.tolist()).tolist() == started.others(0).records(ads.tolist()).tolist()
    assert others.records(ads.tolist()).tolist() == (records * [[1], [2], [1]]).tolist()
    assert others.records([int(ads[0]) + 1]).tolist() == records[:1].tolist()  # of another bucket
    assert others.news() == {int(ads[0]), int(ads[2])}


def test_a_tombstone_makes_a_word_count_no_more() -> None:
    pool, own, other = Pool(), lane_of(1), lane_of(2)
    own.commit(SHOP, pool.others(0))
    alone, words = served(own), other.share(1)
    heard(pool, words)
    own.commit(SHOP, pool.others(0))
    assert served(own) != alone
    heard(pool, [Message(word.key, None) for word in words])
    own.commit(SHOP, pool.others(0))
    assert served(own) == alone


def log_losses(lanes: int, *, share: bool) -> float:
    """Mean log loss of what ``lanes`` serve, over the second half of a stream whose ads differ."""
    rng = np.random.default_rng(7)
    events, users, logit = stream(11, 6_000, lifts=rng.normal(0, 0.8, len(SHOP)))
    shown, pool = np.cumsum(events["source"] == Source.IMPRESSION) - 1, Pool()
    of = [LaneClicks(LEARNING) for _ in range(lanes)]
    costs: list[float] = []
    for start in range(0, len(events), 100):
        for lane, clicks in enumerate(of):
            part = np.flatnonzero(users[start : start + 100] % lanes == lane) + start
            if not len(part):
                continue
            slice_ = events[part]
            impressions = part[slice_["source"] == Source.IMPRESSION]
            if start > len(events) // 2:
                costs += _costs(clicks, SHOP, events, users, impressions, logit[shown[impressions]])
            others = pool.others(lane) if share else None
            observe(clicks, slice_, users[part], logit[shown[impressions]], others)
            if share:
                heard(pool, clicks.share(lane))
    return float(np.mean(costs))


def _costs(
    clicks: LaneClicks, shop: Catalogue, events: Events, users: np.ndarray, at: np.ndarray, logit: np.ndarray
) -> list[float]:
    """Log losses of what is served for the impressions ``at``; a click on one comes next in the stream."""
    candidates = shop.slots_of(events["ad"][at])[:, None]
    found = clicks.calibrator.calibration(users[at], context(len(at)), candidates)
    everyone = np.ones(len(at), dtype=bool)
    odds = found.log_odds(logit[:, None].astype(np.float32), context(len(at)), everyone)[:, 0]
    following = np.minimum(at + 1, len(events) - 1)
    clicked = events["answers"][following] & (following > at)
    costs: list[float] = np.log1p(np.exp(np.where(clicked, -odds, odds))).tolist()
    return costs


def test_eight_lanes_that_share_serve_as_well_as_one_that_has_all_outcomes() -> None:
    one, alone, together = log_losses(1, share=False), log_losses(8, share=False), log_losses(8, share=True)
    assert together < alone - 0.6 * (alone - one)
    assert one < alone
