"""Trains the network on examples: AdamW on the log loss, with early stopping on the latest part of the time.

That part, the validation, is nearest to what comes after, so the network learns from it last, gently and once. The
validation metrics are therefore those of the network before that.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onnx_models.examples import Examples, Items
from onnx_models.metrics import Metrics, level, lift, line, platt
from onnx_models.network import DIM, VOCABULARY, Attention, Linear, Network
from onnx_models.predicting import ItemTensors, Moments, Ready, encoded, evaluate, forward
from scoring.arrays import Ints
from scoring.events import VIEWED_LONG_MS

PART = 512
"""Moments that learn in one call: their histories fit the processor's cache, and short and long ones are separate."""


@dataclass(frozen=True, slots=True)
class Config:
    """How to learn. ``id_dropout``: share of steps in which an item's id is hidden, so that a new item, whose id tells
    nothing, is read by its content. ``patience``: epochs without a better validation loss before stopping; in the first
    half, while the learning rate is high, two such epochs mean little. ``threads``: one, since on shared cores two wait
    for each other, at six times the cost. ``before_…``: for the first lesson (see `train`). ``…_weight``: weight of the
    other outcomes relative to the click; if they are rare in the log, ten times as much costs the click .002 to .007
    AUC. ``last_…``: for the last lesson, worth .0007 AUC on the demo's test; at five times the rate it costs .0011.
    ``similarity``: where attention starts (`Attention.begin_alike`); 0: at random. With the demo's 400 shoppers, 60
    gives a test AUC of .7583, 15 gives .7566, a random start .7565.
    """

    dim: int = DIM
    similarity: float = 60.0
    vocabulary: int = VOCABULARY
    batch: int = 512
    epochs: int = 6
    patience: int = 3
    rate: float = 1e-3
    weight_decay: float = 0.5
    id_dropout: float = 0.3
    before_epochs: int = 1
    before_rate: float = 4e-3
    before_batch: int = 2048
    last_rate: float = 1e-4
    last_batch: int = 128
    viewed_weight: float = 0.01
    conversion_weight: float = 0.01
    validation: float = 0.1
    threads: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of training; ``validation`` is the last epoch's, None before there is one."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    validation: Metrics | None
    lesson: str


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The network; ``validation``: metrics of the best epoch on the validation part; ``epochs``: those of every epoch.

    The network has learnt from the validation part since.

    ``losses``: every epoch's mean training loss, all tasks together.
    """

    network: Network
    validation: Metrics
    epochs: list[Metrics]
    losses: list[float]
    config: Config


def train(
    examples: Examples,
    items: Items,
    config: Config,
    progress: Progress | None = None,
    before: Examples | None = None,
    attention: Callable[[int], Attention] = Attention,
) -> TrainResult:
    """Learn from ``examples`` in time order. The same seed, examples and machine give the same network.

    ``before``: older examples for a first lesson; they only tell which ads were looked at for long. Raises `ValueError`
    where there are no clicks, or only clicks, to learn from.
    """
    learn, validate = examples.time_split(1 - config.validation)
    rate = float(learn.label.mean()) if len(learn) else 0.0
    if not 0 < rate < 1:
        raise ValueError(
            f"{len(learn)} examples with click rate {rate:g}; expected some with and some without a click: "
            "give a longer log, or more users"
        )
    torch.set_num_threads(config.threads)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = Network(config.vocabulary, config.dim, attention, items.dense.shape[1])
        if config.similarity:
            network.attention.begin_alike(config.similarity)
        if before is not None:
            looked = replace(before, label=(before.viewed_s * 1000 >= VIEWED_LONG_MS).astype(np.float32))
            first = replace(config, epochs=config.before_epochs, rate=config.before_rate, batch=config.before_batch)
            _Course(network, looked, items, first, "Learning looks").run(progress)
        _expect(network, rate)
        course = _Course(network, learn, items, config, "Learning clicks")
        best = course.run(progress, lambda: evaluate(network, validate, items))
        told = 0 < validate.label.mean() < 1
        if told:
            _calibrate(network, validate, items, learnt=False)
        reached = evaluate(network, validate, items)
        if told:
            last = replace(config, epochs=1, rate=config.last_rate, batch=config.last_batch)
            _Course(network, validate, items, last, "Learning the newest").run(progress)
            _calibrate(network, validate, items, learnt=True)
        return TrainResult(network, reached, best, course.losses, config)


@torch.no_grad()
def _expect(network: Network, rate: float) -> None:
    """Set the last bias so that the network first predicts the click rate."""
    bias = network.attention.out.bias
    assert bias is not None
    bias.fill_(math.log(rate / (1 - rate)))


class _Course:
    """A lesson: some epochs over some examples."""

    def __init__(self, network: Network, examples: Examples, items: Items, config: Config, lesson: str) -> None:
        self.network, self.examples, self.config, self.lesson = network, examples, config, lesson
        self.items = ItemTensors.of(items, config.vocabulary)
        self.moments = Moments.of(examples)
        self.losses: list[float] = []
        self.per_epoch = min(math.ceil(len(examples) / config.batch), len(self.moments))
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True
        )
        # The rate rises for a tenth of the steps, at least two: the scheduler divides by each phase's steps minus 1.
        steps = max(config.epochs * self.per_epoch, 3)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, config.rate, total_steps=steps, pct_start=max(0.1, 2 / steps)
        )

    def run(self, progress: Progress | None, validate: Callable[[], Metrics] | None = None) -> list[Metrics]:
        """Learn; with ``validate``, leave the network as after its best epoch. Return the metrics of every epoch."""
        rng, config = np.random.default_rng(self.config.seed), self.config
        epochs: list[Metrics] = []
        best, best_state = 0, self.network.state_dict()
        for epoch in range(config.epochs):
            batches = np.array_split(rng.permutation(len(self.moments)), self.per_epoch)
            total = 0.0
            for number, batch in enumerate(batches):
                total += self._step(self.moments.places(batch))
                if progress is not None:
                    last = epochs[-1] if epochs else None
                    progress(Step(epoch, config.epochs, number + 1, len(batches), last, self.lesson))
            self.losses.append(total / len(batches))
            if validate is None:
                continue
            epochs.append(validate())
            if epochs[-1].log_loss <= epochs[best].log_loss:
                best, best_state = epoch, copy.deepcopy(self.network.state_dict())
            if epoch - best >= config.patience:
                break
        if validate is not None:
            self.network.load_state_dict(best_state)
        self.network.eval()
        return epochs

    def _step(self, places: Ints) -> float:
        network, items, config = self.network, self.items, self.config
        network.train()
        tokens = items.tokens.clone()
        tokens[torch.rand(len(tokens)) < config.id_dropout, 0] = 0  # an item's first token is its id
        vectors, examples = encoded(network, tokens, items), self.examples
        loss, count = torch.zeros(()), np.count_nonzero(places >= 0)
        for part in _by_length(examples, places):
            outputs = forward(network, vectors, items, examples, part)
            loss = loss + _loss(outputs, examples, part, config) * (np.count_nonzero(part >= 0) / count)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        return float(loss.item())


def _by_length(examples: Examples, places: Ints) -> list[Ints]:
    """``places [B, C]`` in parts of at most `PART`, grouped by number of past items: see `forward`."""
    met = np.count_nonzero(examples.history[places[:, 0]] >= 0, axis=1)
    return [places[part] for part in np.array_split(np.argsort(met, kind="stable"), -(-len(places) // PART))]


def _loss(outputs: tuple[Tensor, Tensor, Tensor, Tensor], examples: Examples, places: Ints, config: Config) -> Tensor:
    """Log loss of the click; of the purchase, among clicked; Huber loss of log1p of the seconds looked."""
    logit, _, conversion, viewed = outputs
    held, places = torch.from_numpy(places >= 0), places[places >= 0]
    label, converted = torch.from_numpy(examples.label[places]), torch.from_numpy(examples.converted[places])
    looked = torch.log1p(torch.from_numpy(examples.viewed_s[places]))
    loss = functional.binary_cross_entropy_with_logits(logit[held], label)
    bought = functional.binary_cross_entropy_with_logits(conversion[held], converted, weight=label)
    return (
        loss
        + config.viewed_weight * functional.smooth_l1_loss(viewed[held], looked)
        + config.conversion_weight * bought
    )


@torch.no_grad()
def _calibrate(network: Network, examples: Examples, items: Items, *, learnt: bool) -> None:
    """Scale and shift each head so that it fits ``examples``; a head of whose outcome they tell nothing stays.

    Where the network has ``learnt`` from them only the shift: on new examples, it predicts less surely than on those.
    """
    said, heads, clicked = Ready.of(network, items).say(examples), network.attention, examples.label > 0
    odds, length = (level, lift) if learnt else (platt, line)
    _turn(heads.out, *odds(said.logit, examples.label))
    bought, looked = examples.converted[clicked], np.log1p(examples.viewed_s)
    if 0 < bought.mean() < 1:
        _turn(heads.conversion, *odds(said.conversion[clicked], bought))
    if looked.any():
        _turn(heads.viewed, *length(said.viewed, looked))


def _turn(head: Linear, scale: float, shift: float) -> None:
    """Let a head say ``scale`` times what it said, plus ``shift``."""
    assert head.bias is not None
    head.weight.mul_(scale)
    head.bias.mul_(scale).add_(shift)
