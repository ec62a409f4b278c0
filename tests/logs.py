"""A made-up log with everything in it that could be lost, doubled or reordered on the way."""

import numpy as np

from streams.logs import Event, Log, in_order
from tests.builders import START_MS, ad, click, impression

KINDS = ("click", "view", "cart", "purchase")


def busy_log(seed: int, events: int = 3_000, users: int = 150, ads: int = 40) -> Log:
    """A seeded log of ``events`` events.

    A few hot users, many events of one millisecond, clicks in the millisecond of their impression and clicks long
    after it, a producer's repetitions, ads that the catalogue does not have.
    """
    rng = np.random.default_rng(seed)
    offered = [
        ad(f"ad-{n}", category=f"c{n % 5}/s{n % 11}", brand=f"b{n % 7}", bid_micros=1_000 + n) for n in range(ads)
    ]
    out: list[Event] = []
    time_ms = START_MS
    while len(out) < events:
        time_ms += int(rng.choice([0, 0, 1, 40, 5_000]))
        user = f"user-{int(users * rng.random() ** 3)}"
        shown = f"ad-{rng.integers(ads)}" if rng.random() < 0.95 else f"gone-{rng.integers(5)}"
        happened: list[Event] = [impression(user, shown, time_ms, surface=f"tab-{rng.integers(4)}")]
        if rng.random() < 0.4:
            happened.append(_answer(rng, user, shown, time_ms))
        if rng.random() < 0.05:
            happened += happened  # sent again, with the same ids
        out += happened
    return Log(offered, in_order(out)[:events])


def _answer(rng: np.random.Generator, user: str, shown: str, shown_ms: int) -> Event:
    kind = str(rng.choice(KINDS))
    return click(
        user,
        shown,
        shown_ms + int(rng.choice([0, 1, 7_000, 600_000])),
        kind=kind,
        viewed_s=round(float(rng.uniform(0, 90)), 3),
        value_micros=int(rng.integers(1_000_000)) if kind == "purchase" else 0,
        impression_time_ms=shown_ms,
        surface=f"tab-{rng.integers(4)}",
    )
