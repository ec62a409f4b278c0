"""How fast the online click layer learns, as a lane runs it: a slice of events at a time, one core, no broker.

Each impression is predicted when it is shown and learned once, from a click or after the wait for one: one example.
What is timed, in processor time of its one thread, begins with the columns of a slice and what the attention model
said of it, and holds all of the layer's own work: features, prediction, waiting, learning, lifts of ads, outcomes, and
what was shown and clicked; and, once a slice, its records for the changelog and the arrays that serving reads.
``observe`` is without these.
"""

import time
from collections.abc import Iterator

import numpy as np

from scoring.arrays import Ids
from scoring.attention import load
from scoring.events import EVENT, Events, Kind, Source
from scoring.ids import mix64
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM, SURFACES
from scoring.rates import counts_of
from streams.lanes.clicks import LaneClicks
from streams.settings import Settings
from tests.bench.fresh import in_fresh_process, main
from tests.bench.load import START_MS
from tests.bench.report import Report, rounded
from tests.bench.score import shop_of

IMPRESSIONS = 200_000
EVERY_MS = 10
"""Between impressions: a window of ten minutes holds 60,000 of them open."""
CLICK_RATE = 0.05
CLICK_AFTER_MS = 20_000
USERS, ADS = 50_000, 20_000


def run(impressions: int = IMPRESSIONS) -> Report:
    """Measure in a process of its own, with one thread."""
    return in_fresh_process(__name__, impressions=impressions)


def stream(impressions: int, ads: Ids, seed: int = 1) -> Events:
    """Impressions of ``ads`` at a steady rate, clicks that answer some, and at last an event that ends every window."""
    rng = np.random.default_rng(seed)
    out = np.zeros(impressions, dtype=EVENT)
    out["time_ms"] = out["shown_ms"] = START_MS + EVERY_MS * np.arange(impressions)
    out["row"] = rng.integers(USERS, size=impressions)
    out["ad"] = rng.choice(ads, size=impressions)
    out["event"] = mix64(np.arange(impressions, dtype=np.uint64))
    out["slot"], out["surface"] = rng.integers(10, size=impressions), 1
    out["kind"], out["source"] = Kind.SHOWN, Source.IMPRESSION
    clicks = out[rng.random(impressions) < CLICK_RATE].copy()
    clicks["time_ms"] += rng.integers(1, CLICK_AFTER_MS, size=len(clicks))
    clicks["kind"], clicks["source"], clicks["answers"] = Kind.CLICKED, Source.CLICK, True
    last = out[-1:].copy()
    last["time_ms"] += 10 * CLICK_AFTER_MS + 86_400_000
    last["kind"], last["source"], last["ad"] = Kind.VIEWED, Source.CLICK, 0
    events = np.concatenate([out, clicks])
    out = np.concatenate([events[np.argsort(events["time_ms"], kind="stable")], last])
    out["stream_ms"] = out["time_ms"]
    return out


def slices(events: Events, records: int, seed: int = 2) -> Iterator[tuple[Events, Impressions]]:
    """Events as a lane takes them, with logits and contexts that the attention model could have given."""
    rng = np.random.default_rng(seed)
    for start in range(0, len(events), records):
        part = events[start : start + records]
        place = np.flatnonzero(part["source"] == Source.IMPRESSION)
        context = rng.random((len(place), CONTEXT_DIM), dtype=np.float32)
        context[:, -SURFACES:] = np.eye(SURFACES, dtype=np.float32)[rng.integers(SURFACES, size=len(place))]
        yield part, Impressions(place, rng.normal(-3, 1, len(place)).astype(np.float32), context)


def measure(impressions: int, ads: int = ADS) -> Report:
    """All of it, in this process."""
    model = load()
    shop = shop_of(ads, model)
    clicks = LaneClicks()
    records = int(Settings.model_fields["slice_records"].default)
    clicked, observe_s, commit_s = 0, 0.0, 0.0
    for events, shown in slices(stream(impressions, shop.ad[shop.eligible(START_MS)]), records):
        users, control = mix64(events["row"].astype(np.uint64)), np.zeros(len(events), dtype=np.bool_)
        applied = np.ones(len(events), dtype=np.bool_)
        began_s = time.process_time()
        clicks.follow(shop)
        counts = counts_of(events, applied, events["answers"])
        clicks.rates.running(shop.slots_of(events["ad"]), counts)
        clicks.count(events["ad"], counts)
        observed = clicks.layer.observe(events, users, control, shown)
        observed_s = time.process_time()
        clicks.commit(shop)
        observe_s += observed_s - began_s
        commit_s += time.process_time() - observed_s
        clicked += int(observed.outcomes["clicked"].sum())
    learned = clicks.layer.learned
    return {
        "examples_per_s": rounded(learned / (observe_s + commit_s)),
        "observe_examples_per_s": rounded(learned / observe_s),
        "us_per_example": {"observe": rounded(1e6 * observe_s / learned), "commit": rounded(1e6 * commit_s / learned)},
        "examples": learned,
        "clicked": clicked,
    }


if __name__ == "__main__":
    main(measure)
