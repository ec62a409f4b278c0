"""Made-up inputs of both graphs, of any size, to export, verify and measure the graphs with."""

from collections.abc import Sequence

import numpy as np

from scoring.arrays import Singles
from scoring.attention import Arrays
from scoring.features import FEATURE_DIM, TOKENS_MAX
from scoring.inputs import CONTEXT_DIM, STATS_DIM, HistoryKind
from scoring.rows import RING_SIZE


def encoder_feed(rng: np.random.Generator, items: int, dense_dim: int) -> Arrays:
    """Inputs of the encoder: ``tokens [N, T]`` as ids, ``dense [N, dense_dim]``; the last item has no tokens."""
    tokens = rng.integers(1, 1 << 63, (items, TOKENS_MAX), dtype=np.uint64)
    lengths = rng.integers(1, TOKENS_MAX + 1, items)
    lengths[-1] = 0
    tokens[np.arange(TOKENS_MAX) >= lengths[:, None]] = 0
    return {"tokens": tokens, "dense": rng.random((items, dense_dim), dtype=np.float32)}


def attention_feed(rng: np.random.Generator, known: Sequence[int], candidates: int, dim: int) -> Arrays:
    """Inputs of the attention graph for people with ``known`` past items each, 0 to `RING_SIZE`."""
    users = len(known)

    def normal(*shape: int) -> Singles:
        return rng.standard_normal(shape, dtype=np.float32)

    mask = np.arange(RING_SIZE) >= RING_SIZE - np.array(known, dtype=np.int64)[:, None]
    kind = rng.integers(1, len(HistoryKind), mask.shape, dtype=np.int64)
    return {
        "history": normal(users, RING_SIZE, dim) * mask[:, :, None],
        "history_age": rng.random(mask.shape, dtype=np.float32) * 12,
        "history_kind": np.where(mask, kind, 0),
        "history_mask": mask.astype(np.float32),
        "interest": normal(users, FEATURE_DIM) / 8,
        "candidates": normal(users, candidates, dim),
        "candidate_features": normal(users, candidates, FEATURE_DIM) / 8,
        "candidate_stats": rng.random((users, candidates, STATS_DIM), dtype=np.float32),
        "context": rng.random((users, CONTEXT_DIM), dtype=np.float32),
    }
