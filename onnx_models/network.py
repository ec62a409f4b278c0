"""The network: an item encoder that runs when an item changes, and target attention that runs when a person acts.

A candidate attends to a person's past, as in Deep Interest Network (Zhou et al., 2018), but with a scaled dot product
in place of its activation unit (4 % of the cost at 500 candidates). Beside the past items there is a learned null item:
a candidate unlike anything in the past attends to that alone. What depends only on the person (keys, values, the
person's part of the first layer) is computed once per person: a first layer over ``[person; candidate]`` is the sum of
a layer over each.

Letters: N items, T tokens, R numbers of an item, D width, B people, H past items, C candidates, K features,
S candidate stats, X context, M match width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoring.features import DENSE_DIM, FEATURE_DIM
from scoring.inputs import CONTEXT_DIM, STATS_DIM, HistoryKind

DIM = 32
"""D."""
VOCABULARY = 4096
"""V: rows of the token table, 512 KiB at D = 32; row 0 is padding."""
MATCH, WIDE, NARROW = 16, 128, 64
"""M: products of interest and candidate features; widths of the two hidden layers."""
MASKED = -1e9
"""Added to the score of an empty place: exp of it is exactly 0 in float32."""
AGE_SCALE = 0.1
"""Ages come as log1p of seconds: a month is 15."""

RECENCY = -1 / 12
"""Where training starts (`Attention.begin_alike`): attention goes to items of similar content (keys are the items' own
vectors, enlarged since the table starts small) and, with this relative weight, to recent items (it falls with the root
of the age)."""
KIND_SCORES = {
    HistoryKind.OPEN: -1.0,
    HistoryKind.SKIPPED: -1.0,
    HistoryKind.VIEWED_LONG: 0.5,
    HistoryKind.CLICKED: 1.0,
    HistoryKind.CARTED: 1.0,
    HistoryKind.PURCHASED: 1.0,
}
"""Where training starts: items that a person acted on get more attention than items merely shown."""


class Linear(nn.Module):
    """``x @ weight + bias``. The weight is kept as it is multiplied, so the exported graph has its name and shape."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = math.sqrt(6 / inputs) / 2
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class ItemEncoder(nn.Module):
    """Content to a learned vector. ``dense_dim``: R; beyond the item's numbers, it holds the vector of the title."""

    def __init__(self, vocabulary: int, dim: int, dense_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, dim) * 0.1)
        self.hidden = Linear(dim + DENSE_DIM, 2 * dim)
        self.out = Linear(2 * dim, dim)
        self.text = Linear(dense_dim - DENSE_DIM, dim, bias=False) if dense_dim > DENSE_DIM else None

    def forward(self, tokens: Tensor, dense: Tensor) -> Tensor:
        """``tokens [N, T]`` int64 in 0..V-1, 0 for padding; ``dense [N, R]`` → ``[N, D]``.

        The title's vector is added like another token.
        """
        held = (tokens > 0).to(dense.dtype)  # [N, T]
        found = functional.embedding(tokens, self.table) * held.unsqueeze(2)  # [N, T, D]
        count = held.sum(1, keepdim=True).clamp(min=1)  # [N, 1]
        mean = found.sum(1) / count  # [N, D]
        if self.text is not None:
            mean = mean + self.text(dense[:, DENSE_DIM:])  # [N, D]
            dense = dense[:, :DENSE_DIM]
        hidden = torch.relu(self.hidden(torch.cat([mean, dense], 1)))  # [N, 2D]
        vector: Tensor = mean + self.out(hidden)  # [N, D]
        return vector


class Attention(nn.Module):
    """People and candidates to log-odds of a click, and the attention that explains them."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.randn(len(HistoryKind), dim) * 0.1)
        self.kind_score = nn.Parameter(torch.zeros(len(HistoryKind), 1))
        self.recency = Linear(1, dim)
        self.recency_score = Linear(1, 1)
        self.key = Linear(dim, dim, bias=False)
        self.value = Linear(dim, dim)
        self.null_key = nn.Parameter(torch.zeros(1, 1, dim))
        self.null_value = nn.Parameter(torch.zeros(1, 1, dim))
        self.match_user = Linear(FEATURE_DIM, MATCH, bias=False)
        self.match_item = Linear(FEATURE_DIM, MATCH, bias=False)
        self.wide_user = Linear(FEATURE_DIM + CONTEXT_DIM, WIDE)
        self.wide_item = Linear(3 * dim + MATCH + STATS_DIM, WIDE, bias=False)
        self.narrow = Linear(WIDE, NARROW)
        self.out = Linear(NARROW, 1)
        self.conversion = Linear(NARROW, 1)
        self.viewed = Linear(NARROW, 1)

    @torch.no_grad()
    def begin_alike(self, similarity: float) -> None:
        """Start from attention by similarity, with this weight, times recency, instead of random weights."""
        identity = torch.eye(self.key.weight.shape[0])
        self.key.weight.copy_(similarity * identity)
        self.value.weight.copy_(identity)
        self.recency_score.weight.fill_(RECENCY * similarity)
        for kind, score in KIND_SCORES.items():
            self.kind_score[kind] = score

    def forward(
        self,
        history: Tensor,  # [B, H, D]
        history_age: Tensor,  # [B, H]
        history_kind: Tensor,  # [B, H]
        history_mask: Tensor,  # [B, H]
        interest: Tensor,  # [B, K]
        candidates: Tensor,  # [B, C, D]
        candidate_features: Tensor,  # [B, C, K]
        candidate_stats: Tensor,  # [B, C, S]
        context: Tensor,  # [B, X]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """→ ``logit [B, C]``, ``attention [B, C, H]``, ``conversion [B, C]``, ``viewed [B, C]``.

        The attention's sum over H is at most 1, and 0 for an empty history; ``conversion`` is the log-odds that a click
        becomes a purchase, ``viewed`` the log1p of the seconds that an impression is looked at.
        """
        # Once per person.
        keys, values, scores = self.past(history, history_age, history_kind, history_mask)
        match_user = self.match_user(interest).unsqueeze(1)  # [B, 1, M]
        wide_user = self.wide_user(torch.cat([interest, context], 1)).unsqueeze(1)  # [B, 1, 128]
        # Once per candidate: 2 × (2·(H+1)·D + K·M + (3D+M+S)·128 + 128·64 + 3·64) = 58 kFLOP.
        weights = self.weigh(candidates, keys, scores)  # [B, C, 1+H]
        pooled = weights @ values  # [B, C, D]
        match = self.match_item(candidate_features) * match_user  # [B, C, M]
        joined = torch.cat([candidates, pooled, pooled * candidates, match, candidate_stats], 2)  # [B, C, 3D+M+S]
        wide = torch.relu(self.wide_item(joined) + wide_user)  # [B, C, 128]
        narrow = torch.relu(self.narrow(wide))  # [B, C, 64]
        heads = (head(narrow).squeeze(2) for head in (self.out, self.conversion, self.viewed))  # [B, C] each
        logit, conversion, viewed = heads
        return logit, weights[:, :, 1:], conversion, viewed

    def weigh(self, candidates: Tensor, keys: Tensor, scores: Tensor) -> Tensor:
        """Attention of each candidate to the null item and each past item, ``[B, C, 1+H]``."""
        return torch.softmax(candidates @ keys + scores, 2)

    def past(
        self, history: Tensor, history_age: Tensor, history_kind: Tensor, history_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys ``[B, D, 1+H]``, values ``[B, 1+H, D]`` and the items' own scores ``[B, 1, 1+H]``; null item first."""
        people = history.shape[0]
        age = history_age.unsqueeze(2) * AGE_SCALE  # [B, H, 1]
        item = history + functional.embedding(history_kind, self.kind) + self.recency(age)  # [B, H, D]
        keys = self.key(item) / math.sqrt(history.shape[2])  # [B, H, D]
        values = self.value(item)  # [B, H, D]
        own = functional.embedding(history_kind, self.kind_score) + self.recency_score(age)  # [B, H, 1]
        own = own.squeeze(2) * history_mask + (1 - history_mask) * MASKED  # [B, H]
        keys = torch.cat([self.null_key.expand(people, -1, -1), keys], 1)  # [B, 1+H, D]
        values = torch.cat([self.null_value.expand(people, -1, -1), values], 1)  # [B, 1+H, D]
        scores = torch.cat([torch.zeros_like(own[:, :1]), own], 1)  # [B, 1+H]
        return keys.transpose(1, 2), values, scores.unsqueeze(1)


class Network(nn.Module):
    """Encoder and attention, trained together."""

    def __init__(
        self,
        vocabulary: int,
        dim: int = DIM,
        attention: Callable[[int], Attention] = Attention,
        dense_dim: int = DENSE_DIM,
    ) -> None:
        super().__init__()
        self.vocabulary, self.dim, self.dense_dim = vocabulary, dim, dense_dim
        self.encoder = ItemEncoder(vocabulary, dim, dense_dim)
        self.attention = attention(dim)
