"""What a network says of examples: chances of a click, and beside them of a purchase, and seconds looked.

Examples of one moment are predicted together, as a worker scores the candidates of one person at once.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onnx_models.examples import Examples, Items
from onnx_models.metrics import Metrics, measure
from onnx_models.network import Network
from scoring.arrays import Ints, Singles
from scoring.attention import table_rows
from scoring.runs import within

CANDIDATES_MAX = 16
"""Most candidates of one moment in a batch; a longer placement makes several moments."""
MOMENTS_PER_CALL = 1024
"""Moments predicted in one call; bounds memory at about 150 MB."""


@dataclass(frozen=True, slots=True)
class ItemTensors:
    """Items as tensors, with one more at the end for padding: no tokens, all zero."""

    tokens: Tensor  # [N + 1, T]
    dense: Tensor  # [N + 1, R]
    features: Tensor  # [N + 1, K]

    @classmethod
    def of(cls, items: Items, vocabulary: int) -> Self:
        arrays = (table_rows(items.tokens, vocabulary), items.dense, items.features)
        return cls(*(torch.from_numpy(np.concatenate([a, np.zeros_like(a[:1])])) for a in arrays))


@dataclass(frozen=True, slots=True)
class Moments:
    """Examples grouped by person, millisecond and surface: those of one moment share all but the candidate, as served.

    So what depends only on the person is computed once per moment: for placements of ten, an eighth of the work.
    """

    order: Ints  # [E] places of the examples, grouped by moment
    start: Ints  # [M] a moment's first place in order
    count: Ints  # [M] 1 to CANDIDATES_MAX

    @classmethod
    def of(cls, examples: Examples) -> Self:
        shared = (examples.surface, examples.row, examples.time_ms)
        order = np.lexsort(shared)
        nth = within(np.arange(len(order)), *(each[order] for each in shared))
        start = np.flatnonzero(nth % CANDIDATES_MAX == 0)
        return cls(order, start, np.diff(np.append(start, len(order))))

    def __len__(self) -> int:
        return len(self.start)

    def places(self, moments: Ints) -> Ints:
        """Examples of ``moments [B]``: ``[B, C]``, -1 where a moment has fewer."""
        width = np.arange(self.count[moments].max())
        at = self.start[moments][:, None] + width
        held = width < self.count[moments][:, None]
        return np.where(held, self.order[np.where(held, at, 0)], -1)


def encoded(network: Network, tokens: Tensor, items: ItemTensors) -> Tensor:
    """The items' learned vectors ``[N + 1, D]``; the last, for padding, is zero, as in an empty place at serving."""
    vectors: Tensor = network.encoder(tokens[:-1], items.dense[:-1])
    return functional.pad(vectors, (0, 0, 0, 1))


def forward(
    network: Network, vectors: Tensor, items: ItemTensors, examples: Examples, places: Ints
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The network's outputs for the moments of ``places [B, C]``; ``vectors [N + 1, D]``.

    Columns of the history that are empty for all of them are left out.
    """
    first, padding = places[:, 0], len(vectors) - 1
    slots = examples.history[first]  # [B, RING_SIZE]
    met = np.flatnonzero((slots[:, :-1] >= 0).any(axis=0))
    met = np.append(met, slots.shape[1] - 1)  # H of them, at least one
    slots, age, kind = slots[:, met], examples.age[first][:, met], examples.kind[first][:, met]  # [B, H]
    history = torch.from_numpy(np.where(slots >= 0, slots, padding).astype(np.int64))
    known = torch.from_numpy(slots >= 0).to(vectors.dtype)
    item = torch.from_numpy(np.where(places >= 0, examples.item[places], padding).astype(np.int64))  # [B, C]
    outputs: tuple[Tensor, Tensor, Tensor, Tensor] = network.attention(
        functional.embedding(history, vectors),
        torch.from_numpy(age),
        torch.from_numpy(kind.astype(np.int64)),
        known,
        torch.from_numpy(examples.interest[first]),
        functional.embedding(item, vectors),
        functional.embedding(item, items.features),
        torch.from_numpy(examples.stats[places]),
        torch.from_numpy(examples.context[first]),
    )
    return outputs


class Said(NamedTuple):
    """What a network says of examples: ``logit [E]``, log-odds of a click; ``conversion [E]``, log-odds that a click
    becomes a purchase; ``viewed [E]``, log1p of the seconds that an impression is looked at.
    """

    logit: Singles
    conversion: Singles
    viewed: Singles


@dataclass(frozen=True, slots=True)
class Ready:
    """A network that has learnt, and its items encoded, as a worker has them before anybody asks."""

    network: Network
    items: ItemTensors
    vectors: Tensor  # [N + 1, D]

    @classmethod
    def of(cls, network: Network, items: Items) -> Self:
        """Encode the items."""
        tensors = ItemTensors.of(items, network.vocabulary)
        network.eval()
        with torch.inference_mode():
            return cls(network, tensors, encoded(network, tensors.tokens, tensors))

    def say(self, examples: Examples) -> Said:
        """What the network says of the examples."""
        moments, out = Moments.of(examples), np.zeros((3, len(examples)), dtype=np.float32)
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(moments), MOMENTS_PER_CALL):
                places = moments.places(np.arange(start, min(start + MOMENTS_PER_CALL, len(moments))))
                logit, _, conversion, viewed = forward(self.network, self.vectors, self.items, examples, places)
                held = places >= 0
                out[:, places[held]] = torch.stack([logit, conversion, viewed]).numpy()[:, held]
        return Said(*out)

    def predict(self, examples: Examples) -> Singles:
        """Click probabilities of the examples, ``[E]``."""
        return chance(self.say(examples).logit)

    def evaluate(self, examples: Examples) -> Metrics:
        """How well the network predicts the examples."""
        return measure(examples.label, self.predict(examples))


def chance(logit: Singles) -> Singles:
    """The probability of each log-odds."""
    chances: Singles = torch.sigmoid(torch.from_numpy(logit)).numpy()
    return chances


def predict(network: Network, examples: Examples, items: Items) -> Singles:
    """Click probabilities of the examples, ``[E]``."""
    return Ready.of(network, items).predict(examples)


def evaluate(network: Network, examples: Examples, items: Items) -> Metrics:
    """How well the network predicts the examples; its weights do not change."""
    return Ready.of(network, items).evaluate(examples)
