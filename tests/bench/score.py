"""What a placement costs beside the model alone: everything from the rows to the encoded messages, without a broker.

16 people with 50 past items, a shop of 20,000 ads, the demo model, 100 and 500 candidates. Beside the whole, in the
same interleaved repetitions: onnxruntime alone on the same tensors, and a plain retrieval in numpy. Medians.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoring.arrays import Ids, Ints, Singles
from scoring.attention import AttentionModel, load
from scoring.calibration import Calibrator
from scoring.candidates import Shares, choose
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.feedback import ClickLayer
from scoring.gathering import gather
from scoring.ids import id64s
from scoring.inputs import ModelInputs, interest_of
from scoring.interest import decayed
from scoring.policies import Group, Policy, in_control
from scoring.pool import Pool
from scoring.rows import RING_SIZE, Rows, RowStore
from scoring.update import apply
from streams.placing import place
from tests.bench.fresh import in_fresh_process, main
from tests.builders import START_MS, click, columns_of, entry, impression

PEOPLE = 16
ADS = 20_000
SHELVES, BRANDS, TAGS, WORDS = 240, 500, 2_000, 3_000
REPETITIONS, REPETITIONS_QUICK = 60, 8
Times = dict[str, float]


def run(*, quick: bool = False) -> dict[str, object]:
    """Measure in a process of its own; ``quick``: few repetitions."""
    return in_fresh_process(__name__, quick=quick)


def shop_of(ads: int, model: AttentionModel, seed: int = 1) -> Catalogue:
    """Ads of many shelves, brands, tags and words; bids and starts differ."""
    rng = np.random.default_rng(seed)
    shelf, brand = rng.integers(SHELVES, size=ads), rng.integers(BRANDS, size=ads)
    tags, words = rng.integers(TAGS, size=(ads, 4)), rng.integers(WORDS, size=(ads, 4))
    price, bid = rng.lognormal(17, 1, ads).astype(int), rng.lognormal(11, 1, ads).astype(int)
    shop = Catalogue(model.encode, model.dim)
    shop.upsert(
        [
            entry(
                f"ad-{n:06}",
                category=f"department-{shelf[n] % 12}/shelf-{shelf[n]}",
                brand=f"brand-{brand[n]}",
                tags=tuple(f"tag-{tag}" for tag in tags[n]),
                title=" ".join(f"word{word}" for word in words[n]),
                price_micros=int(price[n]),
                campaign_id=f"campaign-{n % 400}",
                bid_micros=int(bid[n]),
                start_ms=START_MS - 1_000 * (ads - n),
            )
            for n in range(ads)
        ]
    )
    return shop


def people_of(shop: Catalogue, people: int, seed: int = 2) -> RowStore:
    """People of three favourite shelves each, with `RING_SIZE` past items, a fifth of them from anywhere."""
    rng = np.random.default_rng(seed)
    shelves: dict[str, list[str]] = {}
    for each in shop.entries:
        shelves.setdefault(each.content.category, []).append(each.content.item_id)
    names = sorted(shelves)
    events = []
    for person in range(people):
        liked = rng.choice(len(names), 3, replace=False)
        for step in range(RING_SIZE):
            at_home = rng.random() < 0.8
            shelf = shelves[names[rng.choice(liked) if at_home else rng.integers(len(names))]]
            what = click if rng.random() < 0.4 else impression
            events.append(what(f"user-{person:04}", str(rng.choice(shelf)), START_MS + 1_000 * step))
    store = RowStore()
    apply(store, columns_of(store, events), shop)
    return store


def counted(shop: Catalogue, seed: int = 3) -> Calibrator:
    """What a lane serves by: every ad was shown up to 300 times, and clicked one time in twenty."""
    layer, rng = ClickLayer(), np.random.default_rng(seed)
    shown = rng.integers(0, 300, len(shop))
    layer.lifts.count(shop.ad, np.column_stack([shown, rng.binomial(shown, 0.05)]))
    out = Calibrator()
    out.update(layer, shop, Pool().others(0))
    return out


def nothing() -> None:
    """Prepares nothing."""


@dataclass(frozen=True)
class Part:
    """What is timed: ``run`` of what ``prepare`` makes just before, which is not timed, and leaves it in the caches."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = nothing


@dataclass(frozen=True)
class Case:
    """One number of candidates: the engine, and what the parts are timed on."""

    engine: Engine
    learned: Calibrator
    users: list[bytes]
    ids: Ids
    rows: Rows
    candidates: Ints

    @classmethod
    def of(cls, engine: Engine, store: RowStore) -> "Case":
        users = [user for user in store.users if user is not None]
        ids, rows = id64s([user.decode() for user in users]), store.rows[: len(users)]
        learned = counted(engine.catalogue)
        scored = engine.place(rows, ids, ids, learned)
        return cls(engine, learned, users, ids, rows, np.concatenate([part.asked.candidates for part in scored]))

    def retrieve(self) -> Ints:
        """The engine's retrieval, with what it needs of the rows."""
        now_ms = self.rows["time_ms"].copy()
        _, interest = interest_of(decayed(self.rows["interest"], self.rows["interest_ms"], now_ms))
        policy = self.engine.policy
        control = in_control(self.ids, policy.control_share)
        shop, pinned = self.engine.catalogue, self.engine.pinned(policy)
        barred = self.engine.market.barred(shop)
        return choose(shop, interest, self.ids, int(now_ms.max()), policy.shares, control, pinned, barred)

    def gather(self) -> ModelInputs:
        """The model's inputs of the candidates."""
        rows, rates = self.rows, self.learned.rated(self.candidates)
        return gather(self.engine.catalogue, rows, rows["time_ms"], self.candidates, rows["surface"], rates=rates)[0]

    def parts(self) -> dict[str, Part]:
        """What is timed, by name. Each of the later ones contains earlier ones, so that the rest is a difference.

        The model alone finds its inputs where the engine's finds them, in the caches: from memory it takes longer
        than within the whole.
        """
        copied = np.arange(len(self.users))
        engine, rows, ids = self.engine, self.rows, self.ids
        group = Group(copied, engine.policy)
        return {
            "state": Part(lambda _: rows[copied]),
            "retrieve": Part(lambda _: self.retrieve()),
            "gather": Part(lambda _: self.gather()),
            "onnx": Part(engine.model.score, self.gather),
            "score": Part(lambda _: engine.score(rows, ids, ids, self.candidates, group, self.learned)),
            "whole": Part(lambda _: place(engine, 0, self.users, rows[copied], self.learned)),
        }


def reference(interest: Singles, items: Singles, count: int) -> Ints:
    """The plain retrieval: the product with every ad, and the ``count`` largest, ``[B, count]``."""
    nearest: Ints = np.argpartition(interest @ items.T, len(items) - count, axis=1)[:, -count:]
    return nearest


def recall(shop: Catalogue, interest: Singles, count: int) -> float:
    """The share of the ``count`` nearest ads of each person that the engine's retrieval finds, nothing else asked."""
    seeds = np.arange(len(interest), dtype=np.uint64)
    found = choose(shop, interest, seeds, START_MS, Shares(count, fresh=0, random=0))
    exact = shop.eligible(START_MS)[reference(interest, shop.features[shop.eligible(START_MS)], count)]
    hits = sum(len(np.intersect1d(*pair)) for pair in zip(found, exact, strict=True))
    return hits / exact.size


def medians_us(parts: dict[str, Part], repetitions: int, people: int) -> Times:
    """Median µs a person of each part; the parts take turns, so that noise falls on all of them."""
    spent: dict[str, list[float]] = {name: [] for name in parts}
    for repetition in range(-3, repetitions):
        for name, part in parts.items():
            prepared = part.prepare()
            began = time.perf_counter()
            part.run(prepared)
            if repetition >= 0:  # the first rounds warm caches and arenas
                spent[name].append(time.perf_counter() - began)
    return {name: 1e6 * float(np.median(times)) / people for name, times in spent.items()}


def split(times: Times) -> Times:
    """The whole's time by stage, µs a person: stages that cannot be called alone are differences."""
    rank = times["score"] - times["gather"] - times["onnx"]
    encode = times["whole"] - times["state"] - times["retrieve"] - times["score"]
    alone = {name: times[name] for name in ("state", "retrieve", "gather", "onnx")}
    return {name: round(us, 1) for name, us in (alone | {"rank": rank, "encode": encode}).items()}


def measure(quick: bool = False, ads: int = ADS) -> dict[str, object]:
    """All of it, in this process."""
    model = load()
    shop = shop_of(ads, model)
    store = people_of(shop, PEOPLE)
    cases = {count: Case.of(Engine(shop, model, Policy(shares=Shares(count))), store) for count in (100, 500)}
    items = shop.features[shop.eligible(START_MS)].copy()
    interest = cases[100].gather().interest
    parts = {f"{name}_{count}": part for count, case in cases.items() for name, part in case.parts().items()}
    parts["reference"] = Part(lambda _: reference(interest, items, 100))
    times = medians_us(parts, REPETITIONS_QUICK if quick else REPETITIONS, PEOPLE)
    by_count = {count: {name: times[f"{name}_{count}"] for name in case.parts()} for count, case in cases.items()}
    small, large = by_count[100], by_count[500]
    return {
        "placements_per_s_100": round(1e6 / small["whole"]),
        "placements_per_s_500": round(1e6 / large["whole"]),
        "onnx_us_100": round(small["onnx"], 1),
        "onnx_us_500": round(large["onnx"], 1),
        "reference_retrieval_us": round(times["reference"], 1),
        "overhead_ratio": round((small["whole"] - small["onnx"]) / times["reference"], 3),
        "total_ratio_500": round(large["whole"] / large["onnx"], 3),
        "recall": round(recall(shop, interest, 100), 4),
        "stages_us_100": split(small),
        "stages_us_500": split(large),
        "people": PEOPLE,
        "ads": len(shop),
    }


if __name__ == "__main__":
    main(measure)
