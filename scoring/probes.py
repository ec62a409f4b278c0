"""People and ads at the edges of what can come, drawn from a seed, not chosen by the author of the model on trial.

They are made of rows, ads and counts just as a worker makes everybody's inputs. So a model must be able to score each
of them, and as fast as others.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ids, Ints, Singles
from scoring.attention import AttentionModel
from scoring.catalogue import Catalogue, Entry
from scoring.events import Kind
from scoring.features import FEATURE_DIM, LEVELS_MAX, TAGS_MAX, WORDS_MAX, Content
from scoring.gathering import Gathered, People
from scoring.ids import uniform
from scoring.inputs import COUNTED_MAX, SCREEN_S, SESSION_S, SKIPPED_AFTER_S, ModelInputs
from scoring.interest import HALF_LIVES_MS
from scoring.rates import EXPECTED_MAX, RateTable
from scoring.rows import HORIZONS, INTEREST_MAX, PLACES, RING_SIZE, ROW, SHOWN_BIT, Rows, packed
from scoring.text import TEXT_DIM
from scoring.tones import MEMORY
from scoring.units import HOUR_MS

SEED = 1
ROUNDS = 4
"""Draws of `PEOPLE`: the demo shop's model takes some milliseconds for all."""
PEOPLE, CANDIDATES = 8, 100
"""A handful of people, and as many candidates as the settings give each."""
ADS = 20
"""Different ads among the candidates, which repeat: making an ad's features takes longer than scoring it."""
NOW_MS = 1_790_000_000_000
DAY_S = 86_400
COUNTERS = (0, 1, COUNTED_MAX, 10_000)
"""Counts of what one person has done: nothing, once, the most that is told, and a machine's below the rules."""
AGES_S = (0, SCREEN_S, SKIPPED_AFTER_S, SESSION_S, DAY_S, 3_650 * DAY_S)
"""Ages on both sides of the bounds by which the inputs tell them apart, up to ten years."""


class _Draws:
    """Draws from a seed, the same with every version of numpy."""

    def __init__(self) -> None:
        self._next = SEED

    def _uniform(self, *shape: int) -> Floats:
        first, self._next = self._next, self._next + math.prod(shape)
        return uniform(np.arange(first, self._next, dtype=np.uint64)).reshape(shape)

    def of(self, values: Sequence[Any] | npt.NDArray[Any], *shape: int) -> npt.NDArray[Any]:
        """Any of ``values``, all alike."""
        return np.asarray(values)[(self._uniform(*shape) * len(values)).astype(np.int64)]

    def one(self, values: Sequence[int]) -> int:
        """One of ``values``."""
        return values[int(self._uniform(1)[0] * len(values))]

    def each(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """One of ``values`` for each of `PEOPLE`: the first for the first, the last for the second."""
        return np.concatenate([[values[0], values[-1]], self.of(values, PEOPLE - 2)])

    def spread(self, *shape: int) -> Floats:
        """Numbers around 0 with a variance of 1."""
        return (self._uniform(*shape) - 0.5) * math.sqrt(12)


def probes(model: AttentionModel) -> Iterator[ModelInputs]:
    """`ROUNDS` times inputs of `PEOPLE` and `CANDIDATES`: of the first nothing is known, of the second all that can be.

    Raises what the model's encoder raises.
    """
    draws = _Draws()
    catalogue = _catalogue(draws, model)
    candidates = np.tile(np.arange(CANDIDATES) % ADS, (PEOPLE, 1))
    for _ in range(ROUNDS):
        now_ms = NOW_MS + HOUR_MS * draws.of(range(24), PEOPLE)
        rates = _rates(draws, catalogue).at(candidates)
        rows = _rows(draws, catalogue, now_ms)
        people = People.of(catalogue, rows, now_ms, rows["surface"])
        yield Gathered(catalogue, people, candidates, rates=rates).inputs(slice(None))


def probed_ads(model: AttentionModel) -> tuple[Ids, Singles]:
    """Tokens and numbers of the `ADS` that are in the inputs of all `probes`, as the model's encoder takes them."""
    tokens, dense, _ = _catalogue(_Draws(), model).told(0, ADS)
    return tokens, dense


def _catalogue(draws: _Draws, model: AttentionModel) -> Catalogue:
    """`ADS` with as little and as much content as there can be, and any reviews."""

    def titles(texts: Sequence[str]) -> Singles:
        return (draws.spread(len(texts), TEXT_DIM) / math.sqrt(TEXT_DIM)).astype(np.float32)

    def words(most: int) -> list[str]:
        return [f"w{word}" for word in draws.of(range(100), draws.one((0, 1, most)))]

    catalogue = Catalogue(model.encode, model.dim, titles=titles)
    catalogue.upsert(
        [
            Entry(
                Content(
                    item_id=f"ad-{number}",
                    category="/".join(words(LEVELS_MAX)),
                    brand="".join(words(1)),
                    price_micros=draws.one((0, 1, 10**6, 10**15)),
                    tags=tuple(words(TAGS_MAX)),
                    title=" ".join(words(WORDS_MAX)),
                ),
                start_ms=draws.one((0, NOW_MS - 1_000 * DAY_S, NOW_MS)),
            )
            for number in range(ADS)
        ]
    )
    said = np.column_stack([draws.of((0, 1, MEMORY), ADS), draws.of((0.0, 0.5, 1.0), ADS)])
    catalogue.tones.take(catalogue.ad, said)
    return catalogue


def _rates(draws: _Draws, catalogue: Catalogue) -> RateTable:
    """Rates of ads that were shown and clicked never, sometimes, and without end."""
    rates = RateTable()
    shown = draws.of((0.0, 1.0, EXPECTED_MAX, 1e6), ADS)
    clicked = shown * draws.of((0.0, 0.5, 1.0), ADS)
    rates.set(rates.follow(catalogue), np.column_stack([shown, clicked]))
    return rates


def _rows(draws: _Draws, catalogue: Catalogue, now_ms: Ints) -> Rows:
    """`PEOPLE` as they are at ``now_ms [B]``: the first has done nothing, the second all that is counted."""
    rows = np.zeros(PEOPLE, dtype=ROW)
    for name in ("impressions", "views", "clicks", "carts", "purchases", "long_views"):
        rows[name] = draws.each(COUNTERS)
    rows["viewed_ms"] = draws.each((0, 1_000, 10**12))
    length = draws.each((0, 1, INTEREST_MAX / 10))[:, None, None]
    rows["interest"] = length * draws.spread(PEOPLE, HORIZONS, FEATURE_DIM)
    rows["interest_ms"] = now_ms - draws.each((0, *HALF_LIVES_MS))
    rows["surface"] = draws.each((0, 1, draws.one(range(2, 2**16 - 1)), 2**16 - 1))
    held = np.arange(RING_SIZE) >= RING_SIZE - draws.each((0, 1, RING_SIZE // 2, RING_SIZE))[:, None]
    shape = (PEOPLE, RING_SIZE)
    rows["ring_ad"] = np.where(held, draws.of(np.append(catalogue.ad, np.uint64(1)), *shape), 0)  # 1 is no ad's
    rows["ring_s"] = np.where(held, now_ms[:, None] // 1000 - draws.of(AGES_S, *shape), 0)
    kind = draws.of(range(Kind.SHOWN, max(Kind) + 1), *shape) | draws.of((0, SHOWN_BIT), *shape)
    rows["ring_kind"] = np.where(held, kind, 0)
    rows["ring_place"] = packed(np.where(held, draws.of(range(PLACES + 1), *shape), 0).astype(np.uint8))
    return rows
