"""Interest drift: how far people's interest vectors, computed as in the engine, turn from one period to the next."""

import numpy as np
from msgspec import Struct

from scoring.arrays import Floats, Singles
from scoring.features import FEATURE_DIM
from scoring.ids import mix64
from scoring.interest import HALF_LIVES_MS, accumulate, weight_of
from streams.behaviour.joined import Behaviour

PEOPLE_MAX = 20_000
"""People followed: 10 MB of vectors, twice. Of more people, a sample by hash; its quartiles are exact to about 0.01."""
HORIZONS = ("session", "long")


class Turn(Struct, frozen=True):
    """The period from ``from_ms``: ``people`` who attended to something in it and before it.

    A turn is 1 − the cosine of a person's interest at the two ends of the period: 0 is the same direction, 1 nothing in
    common. Median and quartiles are of long interest (half-life a week), ``session_median`` of session interest (half
    an hour).
    """

    from_ms: int
    people: int
    median: float
    low_quartile: float
    high_quartile: float
    session_median: float


class Drift(Struct, frozen=True):
    """``people`` attended to anything in the catalogue; ``followed`` of them are in the sample."""

    people: int
    followed: int
    turns: list[Turn]


def drift(behaviour: Behaviour) -> Drift:
    """The drift of interests, learnt from the actions by the engine's own arithmetic."""
    weight = weight_of(behaviour.actions["kind"], behaviour.actions["viewed_ms"])
    features = behaviour.features()
    weight = np.where((features != 0).any(axis=1)[behaviour.action_ad], weight, np.float32(0))
    attended = np.unique(behaviour.action_user[weight > 0])
    sample = attended[np.argsort(mix64(attended.astype(np.uint64)), kind="stable")[:PEOPLE_MAX]]
    row = np.full(behaviour.users, -1, dtype=np.int64)
    row[sample] = np.arange(len(sample))
    chosen = np.flatnonzero((weight > 0) & (row[behaviour.action_user] >= 0))
    time_ms, index = behaviour.actions["time_ms"][chosen], row[behaviour.action_user[chosen]]
    vectors = np.zeros((len(sample), len(HALF_LIVES_MS), FEATURE_DIM), dtype=np.float32)
    reference_ms = np.zeros(len(sample), dtype=np.int64)
    turns = []
    edges = np.searchsorted(
        behaviour.periods.of(time_ms), np.arange(behaviour.periods.count + 1)
    )  # actions are by time
    for start_ms, begin, end in zip(behaviour.periods.starts_ms, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(begin, end)
        before = vectors.copy()
        learnt = chosen[part]
        accumulate(
            vectors, reference_ms, index[part], time_ms[part], weight[learnt], features[behaviour.action_ad[learnt]]
        )
        here = np.unique(index[part])
        here = here[(before[here] != 0).any(axis=(1, 2))]
        if len(here):
            turns.append(_turn(start_ms, before[here], vectors[here]))
    return Drift(people=len(attended), followed=len(sample), turns=turns)


def _turn(from_ms: int, before: Singles, after: Singles) -> Turn:
    turned = turned_by(before, after)
    low, median, high = np.quantile(turned[:, HORIZONS.index("long")], [0.25, 0.5, 0.75]).tolist()
    session = float(np.median(turned[:, HORIZONS.index("session")]))
    return Turn(from_ms, len(before), median, low, high, session)


def turned_by(before: Singles, after: Singles) -> Floats:
    """1 − the cosine of vectors ``[N, L, K]``, as ``[N, L]``; 1 where one of them has decayed to zero.

    Decay shortens vectors and does not turn them, so each may be taken at any moment.
    """
    one, other = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(one, axis=2) * np.linalg.norm(other, axis=2)
    inner = np.einsum("nlk,nlk->nl", one, other)
    cosine = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0)
    turned: Floats = np.clip(1 - cosine, 0, 2)
    return turned
