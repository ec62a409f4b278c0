"""A trained network as a model directory: two ONNX graphs, golden tensors, a manifest; and back again."""

import hashlib
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from onnx_models.network import Network
from onnx_models.probes import attention_feed, encoder_feed
from scoring.attention import OUTCOMES, Arrays, attention_contract, encoder_contract, table_rows
from scoring.inputs import SPEC_HASH
from scoring.manifest import ATTENTION, ENCODER, FORMAT, MANIFEST, Manifest
from scoring.rows import RING_SIZE
from scoring.text import TEXT_ENCODER, WIDE_DIM

OPSET = 17
"""Old enough for every onnxruntime of recent years, new enough for the network's operators."""
GOLDEN = "golden.npz"
GOLDEN_KNOWN = (0, 1, 23, RING_SIZE)
"""Number of past items of the golden people: none, one, some, a full ring."""


@dataclass(frozen=True, slots=True)
class About:
    """Contents of the manifest that the network itself does not tell; of the metrics, only finite ones are written."""

    name: str
    data: str
    data_from_ms: int = 0
    data_to_ms: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    git_revision: str = ""


def export(network: Network, directory: Path, about: About) -> Manifest:
    """Write ``network`` to ``directory``, which is made if missing; files of the same names are replaced.

    The manifest is written last, so a directory with a manifest is complete. A failure before that, such as a full
    disk, leaves the former model.
    """
    network.eval()
    contents = {graph: _graph(network, graph) for graph in (ENCODER, ATTENTION)}
    contents[GOLDEN] = _golden(network)
    manifest = Manifest(
        format=FORMAT,
        name=about.name,
        spec_hash=SPEC_HASH,
        dim=network.dim,
        vocabulary=network.vocabulary,
        opset=OPSET,
        data=about.data,
        data_from_ms=about.data_from_ms,
        data_to_ms=about.data_to_ms,
        metrics={name: value for name, value in about.metrics.items() if math.isfinite(value)},
        git_revision=about.git_revision,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        golden=GOLDEN,
        text=TEXT_ENCODER if network.dense_dim == WIDE_DIM else "",
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    put(directory, contents | {MANIFEST: encoded + b"\n"})
    return manifest


def put(directory: Path, contents: dict[str, bytes]) -> None:
    """Replace files; the former ones stay until all new ones are written beside them.

    The last of ``contents`` is removed first and put in place last: if it exists, the others belong to it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    parts = {directory / f"{name}.part": directory / name for name in contents}
    try:
        for part, content in zip(parts, contents.values(), strict=True):
            part.write_bytes(content)
        (directory / list(contents)[-1]).unlink(missing_ok=True)
        for part, file in parts.items():
            part.replace(file)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def restore(directory: Path, manifest: Manifest) -> Network:
    """The network whose weights are the initialisers of the graphs in ``directory``.

    Raises `ValueError` where the graphs are not those of `onnx_models.network`, as for a model of another architecture.
    """
    held = {
        graph: onnx.load(str(directory / graph), load_external_data=False).graph.initializer
        for graph in (ENCODER, ATTENTION)
    }
    table = [manifest.vocabulary, manifest.dim]
    tables = [[*each.dims] for each in held[ENCODER] if each.name == "table"]
    if tables != [table]:  # a manifest may promise more than memory holds
        raise ValueError(
            f"{directory / ENCODER} holds tables of {tables}; expected one of {table}, as the manifest says; "
            "a model of another make is verified against its golden tensors only"
        )
    network = Network(manifest.vocabulary, manifest.dim, dense_dim=manifest.dense_dim)
    for graph in (ENCODER, ATTENTION):
        part = _part(network, graph)
        weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in held[graph]}
        drawn = part.state_dict()
        # The heads of other outcomes may be absent, like their outputs.
        weights |= {name: drawn[name] for name in drawn.keys() - weights.keys() if name.split(".")[0] in OUTCOMES}
        wanted = {name: weight.shape for name, weight in drawn.items()}
        if {name: weight.shape for name, weight in weights.items()} != wanted:
            raise ValueError(
                f"{directory / graph} holds the weights {sorted(weights)}; expected those of onnx_models.network, "
                f"{sorted(wanted)}; a model of another make is verified against its golden tensors only"
            )
        part.load_state_dict(weights)
    network.eval()
    return network


def run(network: Network, graph: str, feed: Arrays) -> Arrays:
    """PyTorch's outputs of ``graph`` for ``feed``, by name; tokens are 64-bit ids."""
    inputs, outputs = _names(network, graph)
    with torch.inference_mode():
        out = _part(network, graph)(*_tensors(network, [feed[name] for name in inputs]))
    return {name: tensor.numpy() for name, tensor in zip(outputs, out if len(outputs) > 1 else (out,), strict=True)}


def _part(network: Network, graph: str) -> nn.Module:
    return network.encoder if graph == ENCODER else network.attention


def _tensors(network: Network, arrays: Sequence[npt.NDArray[Any]]) -> tuple[torch.Tensor, ...]:
    """Arrays as tensors, 64-bit token ids as rows of the table."""
    vocabulary = network.vocabulary
    rows = (table_rows(array, vocabulary) if array.dtype == np.uint64 else array for array in arrays)
    return tuple(torch.from_numpy(array) for array in rows)


def _names(network: Network, graph: str) -> tuple[list[str], list[str]]:
    inputs, outputs = _contract(network, graph)
    return list(inputs), [*outputs, *(OUTCOMES if graph == ATTENTION else ())]


def _contract(network: Network, graph: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return encoder_contract(network.dim, network.dense_dim) if graph == ENCODER else attention_contract(network.dim)


def _graph(network: Network, graph: str) -> bytes:
    """The graph, checked, as bytes that depend only on the network and the version of torch."""
    inputs, outputs = _names(network, graph)
    rng = np.random.default_rng(0)
    encoder = graph == ENCODER
    feed = encoder_feed(rng, 2, network.dense_dim) if encoder else attention_feed(rng, (RING_SIZE, 1), 3, network.dim)
    varies = {0: "items"} if encoder else {0: "people"}
    per_candidate = {0: "people", 1: "candidates"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns that this exporter, which traces the module, is legacy. But it keeps the parameters' names, makes
        # a small graph, and needs no package except onnx.
        warnings.simplefilter("ignore", DeprecationWarning)
        # A Python number taken from a shape becomes a constant: D and H, which are fixed. `verify` tries other sizes.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            _part(network, graph),
            _tensors(network, [feed[name] for name in inputs]),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={
                name: per_candidate
                if name.startswith("candidate") or name in {"logit", "attention", *OUTCOMES}
                else varies
                for name in [*inputs, *outputs]
            },
        )
    return _plain(onnx.load_from_string(buffer.getvalue()), network, graph)


def _plain(model: onnx.ModelProto, network: Network, graph: str) -> bytes:
    """The model checked and serialised: fixed sizes stated where the tracer lost them, no paths of this machine."""
    _, outputs = _contract(network, graph)
    for output in model.graph.output:
        shape = outputs[output.name if output.name in outputs else "logit"][1]
        for found, size in zip(output.type.tensor_type.shape.dim, shape, strict=True):
            if size is not None:
                found.dim_value = size
    del model.graph.value_info[:]
    for part in [model, model.graph, *model.graph.node, *model.graph.initializer]:
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _golden(network: Network, known: Sequence[int] = GOLDEN_KNOWN) -> bytes:
    """Inputs and PyTorch's outputs, as `scoring.attention.read_golden` takes them."""
    rng = np.random.default_rng(1)
    encoder = encoder_feed(rng, 5, network.dense_dim)
    attention = attention_feed(rng, known, 5, network.dim)
    arrays = encoder | run(network, ENCODER, encoder) | attention | run(network, ATTENTION, attention)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
