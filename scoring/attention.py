"""The model behind its contract: a directory with two ONNX graphs, loaded only if it is what it says it is.

A model directory holds ``manifest.json`` (`Manifest`) and the files that it names: ``item_encoder.onnx``,
``attention.onnx`` and golden inputs and outputs. Anyone's model that keeps the contract can be dropped in; one that
does not is refused before it scores anybody, with the reason, what was expected and the command that helps.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from scoring.arrays import Ids, Ints, Singles
from scoring.features import DENSE_DIM, FEATURE_DIM, TOKENS_MAX
from scoring.graph import GraphError, read_graph
from scoring.inputs import CONTEXT_DIM, STATS_DIM, ModelInputs
from scoring.manifest import ATTENTION, ENCODER, Manifest, ModelError, checked_files, export_again, read_manifest
from scoring.rows import RING_SIZE

Arrays = dict[str, npt.NDArray[Any]]
Shape = tuple[int | None, ...]

OUTCOMES = ("conversion", "viewed")
"""Further outputs ``[B, C]`` that an attention graph may have: log-odds that a click becomes a purchase; log1p of the
seconds that an impression is looked at. Who does not ask for them does not pay for them."""
GOLDEN_TOLERANCE = 1e-4
"""Largest difference to the golden outputs: float32 sums in another order give about 1e-6, a wrong model far more."""
GOLDEN_BYTES_MAX = 64 * 2**20
"""Largest golden array: those of the demo's model have some kilobytes."""
_FIX = "export the model again: salience train demo --out DIR"


def table_rows(token_ids: Ids, vocabulary: int) -> Ints:
    """Rows of a token table of ``vocabulary`` rows for token hashes of any shape; padding stays 0."""
    return np.where(token_ids == 0, 0, 1 + (token_ids % np.uint64(vocabulary - 1)).astype(np.int64))


def encoder_contract(
    dim: int, dense_dim: int = DENSE_DIM
) -> tuple[dict[str, tuple[str, Shape]], dict[str, tuple[str, Shape]]]:
    """Inputs and outputs of the item encoder: type and shape by name, None where any size goes.

    ``dense_dim``: `scoring.text.WIDE_DIM` of one that asks for text.
    """
    inputs: dict[str, tuple[str, Shape]] = {
        "tokens": ("tensor(int64)", (None, TOKENS_MAX)),
        "dense": ("tensor(float)", (None, dense_dim)),
    }
    return inputs, {"vector": ("tensor(float)", (None, dim))}


def attention_contract(dim: int) -> tuple[dict[str, tuple[str, Shape]], dict[str, tuple[str, Shape]]]:
    """Inputs (those of `ModelInputs`) and outputs of the attention graph, as `encoder_contract`; all must be there."""
    shapes: dict[str, Shape] = {
        "history": (None, RING_SIZE, dim),
        "history_age": (None, RING_SIZE),
        "history_kind": (None, RING_SIZE),
        "history_mask": (None, RING_SIZE),
        "interest": (None, FEATURE_DIM),
        "candidates": (None, None, dim),
        "candidate_features": (None, None, FEATURE_DIM),
        "candidate_stats": (None, None, STATS_DIM),
        "context": (None, CONTEXT_DIM),
    }
    types = {"history_kind": "tensor(int64)"}
    inputs = {name: (types.get(name, "tensor(float)"), shape) for name, shape in shapes.items()}
    logit: Shape = (None, None)
    return inputs, {"logit": ("tensor(float)", logit), "attention": ("tensor(float)", (*logit, RING_SIZE))}


@dataclass(frozen=True)
class AttentionModel:
    """Two sessions and their manifest. Both calls may be made from any thread, at once."""

    manifest: Manifest
    _encoder: onnxruntime.InferenceSession
    _attention: onnxruntime.InferenceSession

    @property
    def dim(self) -> int:
        """D: width of learned vectors."""
        return self.manifest.dim

    @property
    def dense_dim(self) -> int:
        """Numbers of an item that its encoder asks for: with text `scoring.text.WIDE_DIM`, else ``DENSE_DIM``."""
        return self.manifest.dense_dim

    @cached_property
    def version(self) -> str:
        """See `Manifest.version`; every placement carries it."""
        return self.manifest.version

    def encode(self, token_ids: Ids, dense: Singles) -> Singles:
        """Learned vectors ``[N, D]`` of token hashes ``[N, T]`` (0 is padding) and dense features ``[N, R]``.

        An item's vector has the same bits whatever else is encoded with it: receipts are computed again from them.
        Vectors of titles may follow the dense features; a model that does not ask for them ignores them. Raises
        `ModelError` where it does and they are missing, or where its vectors have another shape.
        """
        if dense.shape[1] < self.dense_dim:
            raise ModelError(
                f"model {self.manifest.name} asks for vectors of titles by {self.manifest.text}",
                "a worker that makes them",
                "start it with SALIENCE_TEXT=true and pip install 'salience[text]'",
            )
        tokens = table_rows(token_ids, self.manifest.vocabulary)
        numbers = np.ascontiguousarray(dense[:, : self.dense_dim])
        # One row alone is multiplied by another kernel, whose sums differ in their last bits: it is encoded twice.
        rows = np.zeros(2, dtype=np.int64) if len(dense) == 1 else slice(None)
        (vector,) = self._encoder.run(["vector"], {"tokens": tokens[rows], "dense": numbers[rows]})
        vector = np.asarray(vector, dtype=np.float32)[: len(dense)]
        if vector.shape != (len(dense), self.dim):
            raise ModelError(f"it gives vectors of shape {vector.shape}", f"{(len(dense), self.dim)}", _FIX)
        return vector

    def score(self, inputs: ModelInputs) -> tuple[Singles, Singles]:
        """Log-odds of a click ``[B, C]``, and attention ``[B, C, H]``: how much each item of the history counts."""
        logit, attention = self._attention.run(["logit", "attention"], inputs.feed())
        return np.asarray(logit, dtype=np.float32), np.asarray(attention, dtype=np.float32)

    def outcomes(self, inputs: ModelInputs) -> dict[str, Singles]:
        """Those of `OUTCOMES` that the graph has, ``[B, C]`` each."""
        names = [output.name for output in self._attention.get_outputs() if output.name in OUTCOMES]
        found = self._attention.run(names, inputs.feed()) if names else []  # no names would mean all outputs
        return dict(zip(names, found, strict=True))


def load(directory: Path | None = None) -> AttentionModel:
    """The model in ``directory``, or the packaged demo model. Raises `ModelError` where it breaks its contract."""
    place = resources.files("onnx_models") / "artifacts" / "demo" if directory is None else directory
    return opened(place)[0]


def opened(place: Traversable) -> tuple[AttentionModel, Arrays, float]:
    """The model in ``place``, its golden arrays, and the largest difference to them. Raises `ModelError` as `load`."""
    model, golden = open_unproven(place)
    difference = golden_difference(model, golden)
    if not difference <= GOLDEN_TOLERANCE:  # NaN, too, is not within
        raise ModelError(
            f"{place}: outputs differ from the golden ones by {difference:.3g}",
            f"at most {GOLDEN_TOLERANCE:g}",
            f"see where with: salience verify --model {place}",
        )
    return model, golden, difference


def open_unproven(place: Traversable) -> tuple[AttentionModel, Arrays]:
    """The model in ``place`` and its golden arrays, all checked but what it computes: for whoever looks for the defect.

    Raises `ModelError`. To score people, use `load`.
    """
    manifest = read_manifest(place)
    files = dict(checked_files(place, manifest))
    model = AttentionModel(
        manifest,
        _session(place, ENCODER, files, encoder_contract(manifest.dim, manifest.dense_dim)),
        _session(place, ATTENTION, files, attention_contract(manifest.dim)),
    )
    return model, read_golden(files[manifest.golden], manifest)


def _session(
    place: Traversable,
    name: str,
    files: Mapping[str, bytes],
    contract: tuple[dict[str, tuple[str, Shape]], dict[str, tuple[str, Shape]]],
) -> onnxruntime.InferenceSession:
    """A session of one thread: lanes overlap scoring with I/O, and a second thread makes p99 worse (measured)."""
    fix = export_again(place)
    _check_graph(f"{place}: {name}", files[name], fix)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Else bytes that begin like onnxruntime's own format are loaded as that, past the checks of the ONNX graph.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # An arena keeps the memory of the largest call: 8 MB for 32 people with 100 candidates, 55 MB with 500. Without one
    # scoring 8 to 16 people takes 1.6 times as long (measured): every call gets large buffers anew, page by page. The
    # encoder has none: it runs seldom, and on up to a whole catalogue at once.
    options.enable_cpu_mem_arena = name == ATTENTION
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
        sides = session.get_inputs(), session.get_outputs()  # their names and sizes are decoded as they are read
        inputs, outputs = ({node.name: (str(node.type), list(node.shape)) for node in side} for side in sides)
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(f"{place}: {name} does not load ({error})", "an ONNX graph in one file", fix) from error
    for side, found, wanted in (
        ("inputs", inputs, contract[0]),
        ("outputs", outputs, contract[1]),
    ):
        _check_side(f"{place}: {name}", side, found, wanted, fix)
    return session


def _check_graph(graph: str, content: bytes, fix: str) -> None:
    """That it is a graph, and asks for nothing that a worker does not do. Raises `ModelError`."""
    try:
        objections = read_graph(content).objections()
    except GraphError as error:
        raise ModelError(f"{graph} does not load ({error})", "an ONNX graph in one file", fix) from error
    for has, expected in objections:
        raise ModelError(f"{graph} {has}", expected, fix)


def _check_side(
    graph: str,
    side: str,
    found: Mapping[str, tuple[str, list[Any]]],
    wanted: Mapping[str, tuple[str, Shape]],
    fix: str,
) -> None:
    """Names, types, ranks and sizes of a graph's inputs or outputs. Raises `ModelError`.

    A size that the graph leaves open fits: exporters do not always know what they could; the golden run does.
    """
    found = {name: node for name, node in found.items() if name in wanted or name not in OUTCOMES}
    if found.keys() != wanted.keys():
        raise ModelError(f"{graph} has {side} {sorted(found)}", f"{sorted(wanted)}", fix)
    for name, (type_, shape) in wanted.items():
        has_type, sizes = found[name]
        fits = len(sizes) == len(shape) and all(
            has == size or not isinstance(has, int) for has, size in zip(sizes, shape, strict=True)
        )
        if has_type != type_ or not fits:
            wants = f"{type_} {['any' if size is None else size for size in shape]}"
            raise ModelError(f"{graph}, {side[:-1]} {name}: {has_type} {sizes}", wants, fix)


def read_golden(content: bytes, manifest: Manifest) -> Arrays:
    """Stored inputs and outputs of both graphs by name. Raises `ModelError` where some are missing or unreadable."""
    names = {"tokens", "dense", "vector", "logit", "attention"} | {field.name for field in fields(ModelInputs)}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as stored:
            arrays = {name.removesuffix(".npy"): _array(stored, name) for name in stored.namelist()}
    except Exception as error:  # of zipfile, zlib, struct and numpy, which share no base class
        raise ModelError(f"{manifest.golden} cannot be read ({error})", "an .npz file", _FIX) from error
    if missing := names - arrays.keys():
        raise ModelError(f"{manifest.golden} lacks {sorted(missing)}", "inputs and outputs of both graphs", _FIX)
    if (found := arrays["tokens"].dtype) != np.uint64:
        raise ModelError(f"{manifest.golden} has tokens {found}", "hashes, uint64", _FIX)
    for name in ("vector", "logit", "attention"):
        if (found := arrays[name].dtype).kind != "f":
            raise ModelError(f"{manifest.golden} has {name} {found}", "floating-point numbers", _FIX)
    return arrays


def _array(stored: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """An array of an ``.npz``, read within bounds: its header or its compression may promise more than memory holds.

    Raises `ValueError`, and what zipfile raises.
    """
    with stored.open(name) as file:
        content = file.read(GOLDEN_BYTES_MAX + 1)
    if len(content) > GOLDEN_BYTES_MAX:
        raise ValueError(f"{name} has more than {GOLDEN_BYTES_MAX:,} bytes")
    header = io.BytesIO(content)
    version = np.lib.format.read_magic(header)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(header)
    if (
        dtype.hasobject
        or min(shape, default=0) < 0
        or math.prod(shape) * dtype.itemsize != len(content) - header.tell()
    ):
        raise ValueError(f"{name} is {dtype}{list(shape)} in {len(content) - header.tell():,} bytes")
    array = np.frombuffer(content, dtype, offset=header.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def golden_difference(model: AttentionModel, golden: Arrays) -> float:
    """Largest absolute difference of both graphs' outputs to the golden ones; NaN or infinite where one is not finite.

    Raises `ModelError` where the graphs cannot take the inputs or the outputs have other shapes.
    """
    try:
        vector = model.encode(golden["tokens"], golden["dense"])
        logit, attention = model.score(ModelInputs.of(golden))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise ModelError(f"the graphs do not run ({error})", "that they run on the golden inputs", _FIX) from error
    largest = 0.0
    for name, output in (("vector", vector), ("logit", logit), ("attention", attention)):
        wanted = golden[name]
        if output.shape != wanted.shape or not output.size:
            raise ModelError(f"{name} has shape {output.shape}", f"{wanted.shape}, the golden one's, not empty", _FIX)
        largest = float(np.maximum(largest, np.abs(output - wanted).max()))  # np.maximum passes NaN on
    return largest
