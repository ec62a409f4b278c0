"""What the attention model is given, gathered from rows and catalogue: the same for training and serving.

Names and shapes are the model's contract (B users, H = `RING_SIZE` past items, C candidates, D the model's own
width, K = `FEATURE_DIM`, S = `STATS_DIM`, X = `CONTEXT_DIM`). A change here is a change of `INPUTS_SPECIFICATION`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints, Singles
from scoring.events import Kind
from scoring.features import FEATURE_DIM, specification_hash
from scoring.rates import RATES, RATES_DIM, TONED
from scoring.rows import HORIZONS, KIND_MASK, RING_SIZE, SHOWN_BIT, Rows, place_of, places_of
from scoring.units import DAY_MS

SKIPPED_AFTER_S = 60
"""An item shown this long ago and not acted on counts as skipped; until then its outcome is open."""

SCREEN_S = 2
"""An item shown less than this many seconds before, and not acted on, shares a screen with what is scored and is left
out of its past: nobody has looked at either yet. Else the ad in slot ten would have a past of nine unclicked ads."""
OF_AD = slice(2, 6)
"""Numbers of the candidate's stats that tell how the person met this very ad: times, recency, acted on, skipped."""
RATED = 8
"""Where the numbers of `scoring.rates` begin in the candidate's stats."""
REVIEWED = RATED + TONED
"""Where the numbers of `scoring.tones` begin there."""
STATS_DIM = RATED + RATES_DIM
COUNTED_MAX = 200
"""Impressions are counted up to here, to tell how far a person's rates can be trusted. More would tell nothing new, and
a number that only grows would sooner or later leave the range that a model was trained on."""
SURFACES = 64
"""Places in the app that the context tells apart, by hash. Of an app's 15 places 1.6 pairs collide on average; with 16
it would be 6.6. The context is per person, so this costs nothing per candidate."""
SESSION_S = 1_800
"""What happened within this half hour belongs to the session."""
LONG_AGO_S = np.float32(10 * 365 * 86_400)
"""Ten years: as long ago as never."""
LOG_LONG_AGO = np.log1p(LONG_AGO_S)
_RECENT = 8
"""Where the numbers of `recent_of` begin in the context."""
_PLACE = 15
"""Where the places begin in the context."""
OF_RING = slice(_RECENT, _PLACE)
"""Numbers of the context that come from the ring (`recent_of`)."""
CONTEXT_DIM = _PLACE + SURFACES


class HistoryKind(IntEnum):
    """What happened with a past item, as the model sees it: `Kind`, with skips told apart from open impressions."""

    PADDING = 0
    OPEN = 1
    VIEWED = 2
    VIEWED_LONG = 3
    CLICKED = 4
    CARTED = 5
    PURCHASED = 6
    SKIPPED = 7


INPUTS_SPECIFICATION = {
    "version": 7,
    "history": RING_SIZE,
    "history_kinds": [kind.name for kind in HistoryKind],
    "skipped_after_s": SKIPPED_AFTER_S,
    "screen_s": SCREEN_S,
    "candidate_stats": [
        "session_cosine", "long_cosine", "log_times_in_ring", "recency_in_ring", "acted_in_ring", "skipped_in_ring",
        "log_ad_age_days", "ring_fill", *RATES,
    ],
    "context": [
        f"log_impressions_to_{COUNTED_MAX}", "click_rate_log_above_1", "long_view_rate_log_above_1",
        "view_rate_log_above_1", "hour_sin", "hour_cos", "purchase_rate_log_above_1", "log_mean_viewed_s",
        "log_outcomes_here", "click_balance_here", "log_outcomes_of_session", "click_balance_of_session",
        "recency_of_newest", "latest_outcome", "log_open", f"surface_one_hot_{SURFACES}",
    ],
}  # fmt: skip
SPEC_HASH = specification_hash(INPUTS_SPECIFICATION)
"""Hash of the whole feature specification; a model made for another one is refused."""


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One call's tensors, named as the graph's inputs."""

    history: Singles  # [B, H, D] learned vectors of past items, oldest first, zero where padded
    history_age: Singles  # [B, H] log1p of seconds since
    history_kind: Ints  # [B, H] HistoryKind
    history_mask: Singles  # [B, H] 1 where there is an item that the catalogue knows, else 0
    interest: Singles  # [B, K] session and long interest, each of unit length, added
    candidates: Singles  # [B, C, D] learned vectors
    candidate_features: Singles  # [B, C, K] feature vectors
    candidate_stats: Singles  # [B, C, S]
    context: Singles  # [B, X]

    def feed(self) -> dict[str, Singles | Ints]:
        """The tensors by name, as onnxruntime takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Those that are among the ``tensors`` by name, as `feed` gives them."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class History:
    """What the ring says at a moment, before any model, ``[B, H]``: ids, ages, kinds, which were shown, and where.

    ``place``: as in `scoring.rows.place_of`. ``beside [B]``: how many items were left out because they share a screen
    with what is scored (`SCREEN_S`).
    """

    ad: Ids
    age_s: Singles
    kind: Ints
    shown: Bools
    place: npt.NDArray[np.uint8]
    beside: Ints


def history_of(rows: Rows, now_ms: Ints, *, shown: bool = False) -> History:
    """The rings of ``rows [B]`` at ``now_ms [B]``, as the past of ads ``shown`` then (`SCREEN_S`) or shown next."""
    age_s = np.maximum(now_ms[:, None] // 1000 - rows["ring_s"].astype(np.int64), 0)
    kind = (rows["ring_kind"] & KIND_MASK).astype(np.int64)
    kind[(kind == Kind.SHOWN) & (age_s >= SKIPPED_AFTER_S)] = HistoryKind.SKIPPED
    was_shown = rows["ring_kind"] >= SHOWN_BIT
    beside = shown & was_shown & (kind == HistoryKind.OPEN) & (age_s < SCREEN_S)
    kind[beside] = HistoryKind.PADDING
    ad = np.where(beside, np.uint64(0), rows["ring_ad"])
    place = places_of(rows["ring_place"])
    return History(ad, age_s.astype(np.float32), kind, was_shown & ~beside, place, beside.sum(axis=1))


def context_of(rows: Rows, past: History, now_ms: Ints, surface: npt.NDArray[np.uint16]) -> Singles:
    """What is known of person and moment, ``[B, X]``: counters of the person's own past, hour, place in the app.

    ``past`` is the rows' own; ``surface [B]`` is where the scored ads stand or would stand; 0 (not said) is no place.
    """
    out = np.zeros((len(rows), CONTEXT_DIM), dtype=np.float32)
    impressions = np.maximum(rows["impressions"].astype(np.int64) - past.beside, 0).astype(np.float32)
    out[:, 0] = np.log1p(np.minimum(impressions, COUNTED_MAX)) / 5
    for column, counter in ((1, "clicks"), (2, "long_views"), (3, "views"), (6, "purchases")):
        out[:, column] = _rate(rows[counter], impressions)
    angle = (now_ms % DAY_MS) * (2 * np.pi / DAY_MS)
    out[:, 4], out[:, 5] = np.sin(angle), np.cos(angle)
    out[:, 7] = np.log1p(rows["viewed_ms"] / 1000 / (impressions + 1)) / 5
    out[:, _RECENT:_PLACE] = recent_of(past, surface)
    said = np.flatnonzero(surface)
    out[said, _PLACE + surface[said] % SURFACES] = 1
    return out


def _rate(counted: npt.NDArray[np.uint32], impressions: Singles) -> Floats:
    """A person's rate per impression, ``[B]``, smoothed by a prior of 1 in 10 impressions; above 1 it grows by its log.

    People also look and click unprompted, some a thousand times per impression. A rate like that lies beyond a model's
    training data, and would make it sure of a click.
    """
    rate = (counted.astype(np.float64) + 1) / (impressions + 10)
    return np.minimum(rate, 1) + np.log(np.maximum(rate, 1))


def recent_of(past: History, surface: npt.NDArray[np.uint16]) -> Singles:
    """What the ring tells of outcomes at ``surface [B]`` and in this session, ``[B, 7]``; 0 where it tells nothing.

    It reads only items shown at a known place, since what people find unprompted tells nothing of what they skip. The
    numbers: how many outcomes are known and how far clicks outweigh the rest, at that place, then in the session; how
    recent the newest item is; whether the newest outcome was a click (1) or none (-1); how many impressions are open.
    People click in one place of an app and not in another, and in some sessions not at all: the counters, over all
    times and places, show neither.
    """
    told = past.shown & (past.place > 0)
    known = told & (past.kind > HistoryKind.OPEN)
    clicked = known & (past.kind >= HistoryKind.CLICKED) & (past.kind != HistoryKind.SKIPPED)
    here, session = past.place == place_of(surface)[:, None], past.age_s < SESSION_S
    asked = (known & here, clicked & here, known & session, clicked & session, told & (past.kind == HistoryKind.OPEN))
    count = np.concatenate(asked).reshape(len(asked), len(surface), RING_SIZE).sum(axis=2, dtype=np.float32)
    out = np.empty((len(surface), _PLACE - _RECENT), dtype=np.float32)
    out[:, 0:4:2] = np.log1p(count[0:4:2]).T / 4
    out[:, 1:4:2] = ((2 * count[1:4:2] - count[0:4:2]) / (count[0:4:2] + 2)).T
    newest = np.where(told, past.age_s, LONG_AGO_S).min(axis=1)
    out[:, 4] = (LOG_LONG_AGO - np.log1p(np.minimum(newest, LONG_AGO_S))) / 10
    latest = np.arange(len(surface)), RING_SIZE - 1 - known[:, ::-1].argmax(axis=1)
    out[:, 5] = known[latest] * (2.0 * clicked[latest] - 1)
    out[:, 6] = np.log1p(count[4])
    return out


def interest_of(vectors: Singles) -> tuple[Singles, Singles]:
    """Unit vectors per horizon ``[B, HORIZONS, K]`` and their sum, the model's interest ``[B, K]``."""
    norms = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit = vectors / np.maximum(norms, 1e-6)
    return unit, unit.sum(axis=1, dtype=np.float32)


def closeness_of(stats: Singles) -> Singles:
    """The cosine of candidates with the long interest, ``[...]`` of ``stats [..., S]``; NaN where there is none yet."""
    cosine = stats[..., HORIZONS - 1]
    return np.where(cosine != 0, cosine, np.float32(np.nan))


def cosines_of(unit_interest: Singles, features: Singles, stats: Singles) -> None:
    """Fill the cosines of interest and candidate into ``stats [B, C, S]``, which `stats_of` made.

    ``unit_interest [B, HORIZONS, K]``, ``features [B, C, K]``.
    """
    np.matmul(features, unit_interest.transpose(0, 2, 1), out=stats[:, :, :HORIZONS])


def stats_of(
    candidates: Ints, ad_age_ms: Ints, past: History, past_items: Ints, rates: Singles | None = None
) -> Singles:
    """Statistics of each pair of person and candidate, ``[B, C, S]``; `cosines_of` fills in the cosines.

    ``candidates [B, C]`` and ``past_items [B, H]`` are numbers of ads, from 0, negative where unknown;
    ``ad_age_ms [B, C]``; ``rates [B, C, RATES_DIM]``, None where nothing is known.
    """
    out = np.zeros((*candidates.shape, STATS_DIM), dtype=np.float32)
    _past_of_candidates(out, candidates, past, past_items)
    age_days = np.maximum(ad_age_ms, 0).astype(np.float32) / np.float32(DAY_MS)
    out[:, :, 6] = np.log1p(age_days) / np.float32(5)
    out[:, :, 7] = (past.kind > 0).mean(axis=1)[:, None]
    if rates is not None:
        out[:, :, RATED:] = rates
    return out


def _past_of_candidates(out: Singles, candidates: Ints, past: History, past_items: Ints) -> None:
    """Fill `OF_AD`: how often, how recently and with what outcome the person met this very ad.

    Everyone's candidates are one sorted line of numbers, in which each past item is looked up.
    """
    people, count = candidates.shape
    if not candidates.size:
        return
    # Each person's range begins with a number that no past item has: it is for unknown candidates.
    apart = np.arange(people)[:, None] * (int(candidates.max()) + 2) + 1
    line = (np.maximum(candidates, -1) + apart).ravel()
    order = None if (line[1:] > line[:-1]).all() else np.argsort(line)  # those that retrieval chose are in order
    known = (past_items >= 0) & (past_items <= candidates.max())
    wanted = (past_items + apart)[known]
    found = np.minimum(np.searchsorted(line, wanted, sorter=order), line.size - 1)
    at = found if order is None else order[found]
    met = line[at] == wanted
    at, kind, age = at[met], past.kind[known][met], past.age_s[known][met]
    acted = (kind >= HistoryKind.VIEWED_LONG) & (kind != HistoryKind.SKIPPED)
    times, recency, acted_on, skipped = out.reshape(people * count, STATS_DIM)[:, OF_AD].T
    times[:] = np.log1p(np.bincount(at, minlength=people * count))
    np.maximum.at(recency, at, (1 / (1 + np.log1p(age))).astype(np.float32))
    np.maximum.at(acted_on, at, acted.astype(np.float32))
    np.maximum.at(skipped, at, (kind == HistoryKind.SKIPPED).astype(np.float32))


def empty_inputs(users: int, candidates: int, width: int) -> ModelInputs:
    """Inputs of people without history: zeros of the right shapes, for warm-up and tests."""

    def zeros(*shape: int) -> Singles:
        return np.zeros(shape, dtype=np.float32)

    return ModelInputs(
        history=zeros(users, RING_SIZE, width),
        history_age=zeros(users, RING_SIZE),
        history_kind=np.zeros((users, RING_SIZE), dtype=np.int64),
        history_mask=zeros(users, RING_SIZE),
        interest=zeros(users, FEATURE_DIM),
        candidates=zeros(users, candidates, width),
        candidate_features=zeros(users, candidates, FEATURE_DIM),
        candidate_stats=zeros(users, candidates, STATS_DIM),
        context=zeros(users, CONTEXT_DIM),
    )
