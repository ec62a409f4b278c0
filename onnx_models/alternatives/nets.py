"""The attention network itself, other ways to pool a history, and ablations: the network without one of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor, nn

from onnx_models.cold import unmet
from onnx_models.examples import Examples, Items
from onnx_models.network import DIM, MATCH, NARROW, WIDE, Attention, Linear
from onnx_models.predicting import Ready, predict
from onnx_models.training import Config, Progress, TrainResult, train
from scoring.arrays import Floats
from scoring.features import DENSE_DIM, FEATURE_DIM
from scoring.ids import MISSING
from scoring.inputs import OF_AD, OF_RING, REVIEWED, STATS_DIM
from scoring.interest import WEIGHTS
from scoring.rows import HORIZONS, RING_SIZE

UNIT = 40
"""Width of the hidden layer of DIN's activation unit."""
OF_TIME = slice(2, 6)
"""Part of `OF_RING`: outcomes of this session, age of the newest item, and the newest outcome."""

SUMMED = 2_000
"""Examples whose past items are summed at once: 25 MB of features."""


class MeanPooling(Attention):
    """Every past item has the same weight, whatever the candidate."""

    def weigh(self, candidates: Tensor, keys: Tensor, scores: Tensor) -> Tensor:
        held = (scores > -1e6).to(keys.dtype)  # [B, 1, 1+H]; the null item is always there
        return (held / held.sum(2, keepdim=True)).expand(-1, candidates.shape[1], -1)


class ActivationUnit(Attention):
    """Deep Interest Network's own unit (Zhou et al., 2018): a small network weights each pair; sums are not 1."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.pair = Linear(3 * dim, UNIT)
        self.unit = nn.Sequential(nn.PReLU(), Linear(UNIT, 1))

    def weigh(self, candidates: Tensor, keys: Tensor, scores: Tensor) -> Tensor:
        past = keys.transpose(1, 2).unsqueeze(1)  # [B, 1, 1+H, D]
        candidate = candidates.unsqueeze(2)  # [B, C, 1, D]
        # A layer over [past; candidate; past × candidate] is the sum of a layer over each, the first once per person.
        of_past, of_candidate, of_both = self.pair.weight.split(keys.shape[1])
        assert self.pair.bias is not None
        pair = past @ of_past + (candidate @ of_candidate + self.pair.bias) + (past * candidate) @ of_both
        held = (scores > -1e6).to(keys.dtype)  # [B, 1, 1+H]
        weights: Tensor = self.unit(pair).squeeze(3) * held / RING_SIZE**0.5  # of [B, C, 1+H, UNIT]
        return weights


def without_history(examples: Examples) -> Examples:
    """Nobody has past items; the interest still reflects them, and the counters their number."""
    stats, context = examples.stats.copy(), examples.context.copy()
    stats[:, OF_AD], stats[:, 7], context[:, OF_RING] = 0, 0, 0
    return replace(
        examples,
        history=np.full_like(examples.history, MISSING),
        age=np.zeros_like(examples.age),
        kind=np.zeros_like(examples.kind),
        stats=stats,
        context=context,
    )


def without_interest(examples: Examples) -> Examples:
    """Nobody has an interest vector."""
    stats = examples.stats.copy()
    stats[:, :2] = 0
    return replace(examples, interest=np.zeros_like(examples.interest), stats=stats)


def without_decay(examples: Examples, items: Items) -> Examples:
    """What was long ago counts as much as what was just now: past items have no ages, and interest is their plain sum.

    Of the ring's items, weighted by what happened to them; a session's is no other than the long one.
    """
    stats, context = examples.stats.copy(), examples.context.copy()
    stats[:, 3] = stats[:, 2] > 0
    context[:, OF_RING][:, OF_TIME] = 0
    unit = np.zeros_like(examples.interest)
    weight = np.append(WEIGHTS, np.float32(0))[examples.kind] * (examples.history != MISSING)  # [E, H]; a skip weighs 0
    for start in range(0, len(examples), SUMMED):
        chunk = slice(start, start + SUMMED)
        unit[chunk] = np.einsum("eh,ehk->ek", weight[chunk], items.features[examples.history[chunk]])
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    cosine = np.einsum("ek,ek->e", unit, items.features[examples.item]) * (examples.item != MISSING)
    stats[:, :HORIZONS] = cosine[:, None]
    age = np.zeros_like(examples.age)
    return replace(examples, age=age, stats=stats, context=context, interest=HORIZONS * unit)


def without_reviews(examples: Examples) -> Examples:
    """No ad has reviews."""
    stats = examples.stats.copy()
    stats[:, REVIEWED:] = 0
    return replace(examples, stats=stats)


def unchanged(examples: Examples) -> Examples:
    """The examples as they are."""
    return examples


def whole(items: Items) -> Items:
    """The items as they are."""
    return items


def nameless(items: Items) -> Items:
    """Items without what names one of them alone: content that others share. The only ad of a brand has none either."""
    return replace(items, tokens=np.where(items.own, np.uint64(0), items.tokens))


def untitled(items: Items) -> Items:
    """Items without the vectors of their titles."""
    return replace(items, dense=items.dense[:, :DENSE_DIM])


_REST = 2 * (MATCH * FEATURE_DIM + (3 * DIM + MATCH + STATS_DIM) * WIDE + WIDE * NARROW + 3 * NARROW)
"""Floating-point operations a candidate of all but the attention: see `network.Attention.forward`."""
_DOTS = 2 * 2 * (RING_SIZE + 1) * DIM


@dataclass
class Net:
    """A network to compare. ``before``: the first lesson's examples."""

    name: str
    config: Config
    before: Examples | None = None
    attention: Callable[[int], Attention] = Attention
    change: Callable[[Examples], Examples] = unchanged
    content: Callable[[Items], Items] = whole
    kflop: float = (_REST + _DOTS) / 1000
    progress: Progress | None = None
    result: TrainResult | None = field(default=None, init=False)
    ready: Ready | None = field(default=None, init=False)

    def fit(self, learn: Examples, items: Items) -> None:
        self._items = self.content(items)
        before = None if self.before is None else self.change(self.before)
        self.result = train(self.change(learn), self._items, self.config, self.progress, before, self.attention)
        self.ready = Ready.of(self.result.network, self._items)

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:  # noqa: ARG002 - its state is the inputs
        assert self.ready is not None, "fit comes first"
        return self.ready.predict(self.change(examples)).astype(np.float64)

    def predict_unnamed(self, examples: Examples) -> Floats:
        """As `predict`, but without the ids of all items, past ones included: content alone."""
        assert self.result is not None, "fit comes first"
        return predict(self.result.network, self.change(unmet(examples)), nameless(self._items)).astype(np.float64)


def variants(config: Config, before: Examples | None, items: Items, *, reviewed: bool) -> list[Net]:
    """The other ways to pool, and the ablations; those of reviews and of titles' vectors only where there are some."""
    pooled = (_REST + _DOTS / 2) / 1000
    pair = DIM + 2 * DIM * UNIT + 2 * UNIT
    unit = (_REST + _DOTS / 2 + (RING_SIZE + 1) * pair + 2 * DIM * UNIT) / 1000
    return [
        Net("mean_pooling", config, before, MeanPooling, kflop=pooled),
        Net("din", config, before, ActivationUnit, kflop=unit),
        Net("no_history", config, before, change=without_history),
        Net("no_interest", config, before, change=without_interest),
        Net("no_time_decay", config, before, change=partial(without_decay, items=items)),
        Net("no_id", config, before, content=nameless),
        *([Net("no_reviews", config, before, change=without_reviews)] if reviewed else []),
        *([Net("no_text", config, before, content=untitled)] if items.dense.shape[1] > DENSE_DIM else []),
    ]
