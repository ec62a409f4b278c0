"""A small model that keeps the contract, in a directory of its own, whole or with one thing wrong."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from scoring.attention import attention_contract, encoder_contract
from scoring.features import DENSE_DIM, TOKENS_MAX
from scoring.inputs import SPEC_HASH, HistoryKind, ModelInputs, empty_inputs
from scoring.manifest import ATTENTION, ENCODER, FORMAT, MANIFEST, Manifest
from scoring.probes import CANDIDATES
from scoring.text import TEXT_ENCODER, WIDE_DIM

DIM, VOCABULARY = 4, 50
FEW = 4
"""Items of the golden inputs, whose people are fewer."""
TYPES = {"tensor(float)": TensorProto.FLOAT, "tensor(int64)": TensorProto.INT64}

Graphs = dict[str, onnx.ModelProto]
Arrays = dict[str, Any]
Change = Callable[[dict[str, Any]], None]


def drawn_inputs(rng: np.random.Generator, people: int, candidates: int, dim: int) -> ModelInputs:
    """Inputs as serving makes them: padding first, zero where padded; the first person has no history at all."""
    inputs = empty_inputs(people, candidates, dim)
    places = inputs.history_mask.shape[1]
    held = np.arange(places) >= places - rng.integers(0, places + 1, (people, 1))
    held[0] = False
    inputs.history_mask[:] = held
    inputs.history_kind[:] = rng.integers(1, len(HistoryKind), held.shape) * held
    inputs.history_age[:] = rng.uniform(0, 15, held.shape)
    inputs.history[:] = rng.normal(0, 0.5, inputs.history.shape) * held[:, :, None]
    for array in (inputs.interest, inputs.candidates, inputs.candidate_features):
        array[:] = rng.normal(0, 0.3, array.shape)
    for array in (inputs.candidate_stats, inputs.context):
        array[:] = rng.uniform(0, 1, array.shape)
    return inputs


def drawn_tokens(rng: np.random.Generator, items: int) -> np.ndarray:
    """Token hashes ``[N, T]``, each item with at least one."""
    tokens = rng.integers(1, 2**63, (items, TOKENS_MAX)).astype(np.uint64)
    tokens[np.arange(TOKENS_MAX) >= rng.integers(1, TOKENS_MAX + 1, (items, 1))] = 0
    return tokens


def toy_model(
    directory: Path,
    *,
    graphs: Change | None = None,
    golden: Change | None = None,
    manifest: Change | None = None,
    seed: int = 0,
    text: bool = False,
) -> Path:
    """Write the toy model, another for every ``seed``; with ``text`` it asks for vectors of titles.

    Each change is made before the next part is made from it, so that the hashes still fit.
    """
    protos: dict[str, Any] = {ENCODER: _encoder(seed, text), ATTENTION: _attention()}
    arrays: dict[str, Any] = _golden(seed, text)
    if graphs is not None:
        graphs(protos)
    if golden is not None:
        golden(arrays)
    contents = {name: proto.SerializeToString() for name, proto in protos.items()} | {"golden.npz": npz(arrays)}
    fields: dict[str, Any] = {
        "format": FORMAT, "name": "toy", "spec_hash": SPEC_HASH, "dim": DIM, "vocabulary": VOCABULARY, "opset": 18,
        "data": "none", "golden": "golden.npz", "text": TEXT_ENCODER if text else "",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }  # fmt: skip
    if manifest is not None:
        manifest(fields)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    (directory / MANIFEST).write_bytes(msgspec.json.encode(msgspec.convert(fields, Manifest)))
    return directory


def npz(arrays: Arrays) -> bytes:
    """Arrays as an ``.npz`` file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _table(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(VOCABULARY, DIM)).astype(np.float32)


def _encoder(seed: int, text: bool = False) -> onnx.ModelProto:
    """The vector is the sum over tokens of a table's rows; with ``text`` the dense features, mixed, come to it."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["found"]),
        helper.make_node("ReduceSum", ["found", "axis"], ["sum" if text else "vector"], keepdims=0),
    ]
    constants = {"table": _table(seed), "axis": np.array([1], dtype=np.int64)}
    if text:
        nodes += [
            helper.make_node("MatMul", ["dense", "mix"], ["mixed"]),
            helper.make_node("Add", ["sum", "mixed"], ["vector"]),
        ]
        constants["mix"] = _mix(seed)
    return _model(nodes, constants, encoder_contract(DIM, WIDE_DIM if text else DENSE_DIM))


def _mix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).normal(size=(WIDE_DIM, DIM)).astype(np.float32)


def _attention() -> onnx.ModelProto:
    """The logit is the sum of a candidate's vector, attention its product with each past item."""
    nodes = [
        helper.make_node("ReduceSum", ["candidates", "axis"], ["logit"], keepdims=0),
        helper.make_node("Transpose", ["history"], ["past"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["candidates", "past"], ["attention"]),
    ]
    return _model(nodes, {"axis": np.array([2], dtype=np.int64)}, attention_contract(DIM))


def _model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], contract: tuple[Any, Any]) -> onnx.ModelProto:
    sides = [
        [
            helper.make_tensor_value_info(
                name, TYPES[type_], [f"{name}{at}" if size is None else size for at, size in enumerate(shape)]
            )
            for name, (type_, shape) in side.items()
        ]
        for side in contract
    ]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "toy", *sides, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _golden(seed: int, text: bool = False) -> Arrays:
    """Inputs, and outputs computed with numpy: not by the graphs that they are to check."""
    rng = np.random.default_rng(1)
    inputs, tokens = drawn_inputs(rng, 3, 5, DIM), drawn_tokens(rng, FEW)
    rows = np.where(tokens == 0, 0, 1 + (tokens % np.uint64(VOCABULARY - 1)).astype(np.int64))
    dense = rng.normal(0, 0.05, (4, WIDE_DIM)).astype(np.float32) if text else np.zeros((4, DENSE_DIM), np.float32)
    return {
        "tokens": tokens,
        "dense": dense,
        "vector": _table(seed)[rows].sum(axis=1) + (dense @ _mix(seed) if text else 0),
        **inputs.feed(),
        "logit": inputs.candidates.sum(axis=2),
        "attention": inputs.candidates @ inputs.history.transpose(0, 2, 1),
    }


def fails_on_what_is_new(graphs: Graphs, output: str = "logit") -> None:
    """A change of the graphs: where a candidate's stats exceed those of the golden inputs this output is no number."""
    graph = graphs[ATTENTION].graph
    _source(graph, output).output[0] = "plain"
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["candidate_stats"], ["most"], axes=[2], keepdims=int(output == "attention")),
            helper.make_node("Sub", ["bound", "most"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["trap"]),
            helper.make_node("Add", ["plain", "trap"], [output]),
        ]
    )
    constants = {"bound": 1.5, "nothing": 0.0}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in constants.items()
    )
    graphs[ATTENTION].opset_import[0].version = 17  # where axes are an attribute


def fails_in_use(graphs: Graphs) -> None:
    """A change of the graphs: scores are no numbers of more candidates than golden ones, and fewer than a trial's."""
    graph = graphs[ATTENTION].graph
    _source(graph, "logit").output[0] = "plain"
    graph.node.extend(
        [
            helper.make_node("Shape", ["plain"], ["candidates_of"], start=1),
            helper.make_node("Cast", ["candidates_of"], ["count"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Sub", ["count", "middle"], ["beside"]),
            helper.make_node("Abs", ["beside"], ["distance"]),
            helper.make_node("Sub", ["distance", "least"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["trap"]),
            helper.make_node("Add", ["plain", "trap"], ["logit"]),
        ]
    )
    constants = {"middle": (5 + CANDIDATES) / 2, "least": (CANDIDATES - 5) / 2, "nothing": 0.0}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in constants.items()
    )


def gives_fewer(graphs: Graphs, output: str) -> None:
    """A change of the graphs: this output is that of the first `FEW` people or items, of however many it is asked."""
    graph = graphs[ENCODER if output == "vector" else ATTENTION].graph
    _source(graph, output).output[0] = "plain"
    graph.node.append(helper.make_node("Slice", ["plain", "first", "few", "first"], [output]))
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array([value]), name) for name, value in {"first": 0, "few": FEW}.items()
    )


def _source(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    """The node that makes ``output``."""
    (node,) = (node for node in graph.node if output in node.output)
    return node


def operator(kind: str, *inputs: str, domain: str = "") -> Callable[[Graphs], None]:
    """A change of the graphs: a node of this kind is added to the attention graph, whose output nobody reads."""

    def change(graphs: Graphs) -> None:
        node = helper.make_node(kind, inputs or ["context"], ["unread"], domain=domain)
        graphs[ATTENTION].graph.node.append(node)

    return change
