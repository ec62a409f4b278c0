"""Does a model compute the same here as where it was made? Largest differences, case by case.

It is always compared with its *golden* tensors, which PyTorch computed at the export. Where PyTorch is installed, it is
also compared with *PyTorch* now: 1 to 64 people, 1 to 500 candidates, empty and full histories included.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from onnx_models.probes import attention_feed, encoder_feed
from scoring.attention import GOLDEN_TOLERANCE, OUTCOMES, Arrays, AttentionModel
from scoring.inputs import ModelInputs
from scoring.manifest import ATTENTION, ENCODER
from scoring.rows import RING_SIZE

SHAPES = ((1, 1), (1, 2), (1, 100), (1, 500), (3, 7), (8, 100), (32, 100), (64, 1), (64, 33))
"""People and candidates of the cases against PyTorch."""
ITEMS = (1, 2, 64, 500)
"""Items of the cases against PyTorch."""

Reference = Callable[[str, Arrays], Arrays]
"""Another implementation: outputs by name, given a graph's file name and its inputs."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison. ``shape``: items, or people and candidates. ``against``: "golden" or "pytorch"."""

    graph: str
    shape: tuple[int, ...]
    against: str
    max_abs_diff: float

    @property
    def passed(self) -> bool:
        """Below `GOLDEN_TOLERANCE`."""
        return self.max_abs_diff < GOLDEN_TOLERANCE


def verify(model: AttentionModel, golden: Arrays, reference: Reference | None = None) -> list[Case]:
    """Cases of ``model`` against its ``golden`` tensors and, if given, against ``reference``.

    Golden people are scored together and one by one: a person's score must not depend on others in the batch.
    """
    cases = [_case(model, graph, feed, feed, "golden") for graph, feed in _golden_feeds(golden)]
    if reference is not None:
        cases += [_case(model, graph, feed, reference(graph, feed), "pytorch") for graph, feed in _feeds(model)]
    return cases


def _golden_feeds(golden: Arrays) -> Iterator[tuple[str, Arrays]]:
    encoder = {name: golden[name] for name in ("tokens", "dense", "vector")}
    outputs = ("logit", "attention", *(name for name in OUTCOMES if name in golden))
    attention = {name: golden[name] for name in (*(each.name for each in fields(ModelInputs)), *outputs)}
    for graph, arrays, count in (
        (ENCODER, encoder, len(golden["tokens"])),
        (ATTENTION, attention, len(golden["logit"])),
    ):
        yield graph, arrays
        for at in range(count):
            yield graph, {name: array[at : at + 1] for name, array in arrays.items()}


def _feeds(model: AttentionModel) -> Iterator[tuple[str, Arrays]]:
    rng = np.random.default_rng(2)
    for items in ITEMS:
        yield ENCODER, encoder_feed(rng, items, model.dense_dim)
    for users, candidates in SHAPES:
        known = rng.integers(0, RING_SIZE + 1, users)
        known[0] = 0
        known[1:2] = RING_SIZE
        yield ATTENTION, attention_feed(rng, known.tolist(), candidates, model.dim)


def _case(model: AttentionModel, graph: str, feed: Arrays, wanted: Arrays, against: str) -> Case:
    shape = feed["tokens"].shape[:1] if graph == ENCODER else feed["candidates"].shape[:2]
    return Case(graph, tuple(shape), against, _difference(_run(model, graph, feed), wanted))


def _run(model: AttentionModel, graph: str, feed: Arrays) -> Arrays:
    if graph == ENCODER:
        return {"vector": model.encode(feed["tokens"], feed["dense"])}
    inputs = ModelInputs.of(feed)
    logit, attention = model.score(inputs)
    return {"logit": logit, "attention": attention, **model.outcomes(inputs)}


def _difference(found: Arrays, wanted: Arrays) -> float:
    """Largest absolute difference over ``found``; infinite where a number is not finite, shapes differ, or an outcome
    is wanted that is not found.

    What is not ``wanted``, as outcomes whose golden tensors an exporter did not store, is not compared.
    """
    if wanted.keys() & set(OUTCOMES) - found.keys():
        return float("inf")
    found = {name: array for name, array in found.items() if name in wanted}
    if any(array.shape != wanted[name].shape for name, array in found.items()):
        return float("inf")
    largest = float(np.max([np.abs(array - wanted[name]).max() for name, array in found.items()]))  # passes NaN on
    return largest if np.isfinite(largest) else float("inf")
