"""Kinds of model that must not score anybody: each is refused with its reason, before or by what it has to show.

`test_model_contract` has those that break the contract of files, names and shapes.
"""

import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from scoring.attention import load
from scoring.graph import DEPTH_MAX, OPSETS, GraphError, read_graph
from scoring.manifest import ATTENTION, DIM_MAX, ENCODER, ModelError
from scoring.proof import prove
from tests.models import DIM, Graphs, fails_on_what_is_new, gives_fewer, operator, toy_model


def halt() -> Callable[[], float]:
    """A clock on which everything takes no time."""
    return lambda: 0.0


def ticking(step_s: float) -> Callable[[], float]:
    """A clock on which everything takes ``step_s``."""
    count = itertools.count()
    return lambda: step_s * next(count)


def made(**changes: Any) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        toy_model(directory, **changes)

    return make


class Written(bytes):
    """In place of a graph: what its file is to hold."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return bytes(self)


def _junk(graphs: dict[str, Any]) -> None:
    graphs[ATTENTION] = Written(b"MZ\x90 this is a program")


def _elsewhere(graphs: Graphs) -> None:
    (table,) = (each for each in graphs[ENCODER].graph.initializer if each.name == "table")
    table.ClearField("raw_data")
    table.data_location = onnx.TensorProto.EXTERNAL
    table.external_data.add(key="location", value="/etc/passwd")


def _elsewhere_in_a_constant(graphs: Graphs) -> None:
    tensor = onnx.TensorProto(name="hidden", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secrets")
    graphs[ATTENTION].graph.node.append(helper.make_node("Constant", [], ["hidden"], value=tensor))


def _elsewhere_in_a_sparse_constant(graphs: Graphs) -> None:
    values = onnx.TensorProto(name="sparse", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="../secrets")
    hidden = onnx.SparseTensorProto(values=values, indices=helper.make_tensor("at", onnx.TensorProto.INT64, [1], [0]))
    graphs[ATTENTION].graph.node.append(helper.make_node("Constant", [], ["hidden"], sparse_value=hidden))


def _opset(version: int) -> Callable[[Graphs], None]:
    def change(graphs: Graphs) -> None:
        graphs[ATTENTION].opset_import[0].version = version

    return change


def _function(graphs: Graphs) -> None:
    identity = helper.make_node("Identity", ["a"], ["b"])
    graphs[ATTENTION].functions.append(
        helper.make_function("mine", "Own", ["a"], ["b"], [identity], [helper.make_opsetid("", 18)])
    )


def _for_ever(graphs: Graphs) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "body", [], [])
    graphs[ATTENTION].graph.node.append(helper.make_node("Loop", ["", ""], ["unread"], body=body))


def _chance_under_another_name(graphs: Graphs) -> None:
    node = helper.make_node("RandomNormalLike", ["interest"], ["unread"])
    node.MergeFromString(b"\x21Identity")  # op_type once more, as eight bytes of fixed width
    graphs[ATTENTION].graph.node.append(node)


def _unsure(graphs: Graphs) -> None:
    """No number where a person has no history at all and candidates no vector."""
    graph = graphs[ATTENTION].graph
    graph.node[0].output[0] = "plain"
    graph.node.append(helper.make_node("Div", ["plain", "plain"], ["one"]))
    graph.node.append(helper.make_node("Mul", ["plain", "one"], ["logit"]))


def _lie(golden: dict[str, Any]) -> None:
    golden["logit"] += 0.01


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no graph": (made(graphs=_junk), "expected an ONNX graph in one file"),
    "not a number of strangers": (made(graphs=_unsure), "no finite score of people of whom nothing is known"),
    "not a number of what is new": (made(graphs=fails_on_what_is_new), "no finite score of people and ads as they may"),
    "fewer scores": (
        made(graphs=partial(gives_fewer, output="logit")),
        "gives (4, 100) and (8, 100, 50) of people and ads as they may come; expected (8, 100) and (8, 100, 50)",
    ),
    "fewer vectors": (
        made(graphs=partial(gives_fewer, output="vector")),
        "does not encode ads as they may come (it gives vectors of shape (4, 4)",
    ),
    "golden": (made(golden=_lie), "outputs differ from the golden ones by 0.01"),
    "files elsewhere": (made(graphs=_elsewhere), "keeps table in other files"),
    "constants elsewhere": (made(graphs=_elsewhere_in_a_constant), "keeps hidden in other files"),
    "sparse constants elsewhere": (made(graphs=_elsewhere_in_a_sparse_constant), "keeps sparse in other files"),
    "custom operator": (made(graphs=operator("Steal", domain="evil.example")), "uses evil.example:Steal"),
    "runtime's own operator": (made(graphs=operator("Gelu", domain="com.microsoft")), "uses com.microsoft:Gelu"),
    "chance": (made(graphs=operator("RandomNormalLike")), "uses RandomNormalLike"),
    "chance under another name": (made(graphs=_chance_under_another_name), "uses RandomNormalLike"),
    "loop": (made(graphs=_for_ever), "uses Loop"),
    "function": (made(graphs=_function), "uses 1 functions of its own"),
    "old operator set": (made(graphs=_opset(OPSETS[0] - 1)), f"operator set {OPSETS[0] - 1}"),
    "operator set to come": (made(graphs=_opset(99)), f"operator set 99; expected {OPSETS[0]} to {OPSETS[-1]}"),
    "too wide": (made(manifest=lambda fields: fields.update(dim=DIM_MAX + 1)), f"expected dim 1 to {DIM_MAX}"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_model_is_refused_with_its_reason(tmp_path: Path, kind: str) -> None:
    make, reason = KINDS[kind]
    make(tmp_path)
    with pytest.raises(ModelError) as refused:
        prove(tmp_path, halt())
    assert reason in str(refused.value)
    assert "; expected " in str(refused.value)
    assert "salience " in str(refused.value).rsplit(";", 1)[1], "the fix names a command"


def test_a_slow_model_is_refused_with_what_it_takes_and_what_it_may(tmp_path: Path) -> None:
    toy_model(tmp_path)
    with pytest.raises(ModelError, match=r"takes 125 ms; expected at most 10 ms; .*SALIENCE_MODEL_SCORE_MS_MAX"):
        prove(tmp_path, ticking(1.0), 10.0)


def test_a_model_that_keeps_the_contract_says_what_it_has_shown(tmp_path: Path) -> None:
    model, proof = prove(toy_model(tmp_path), ticking(0.008), 10.0)
    assert (proof.version, model.version) == (load(tmp_path).version,) * 2
    assert proof.score_ms == pytest.approx(1.0)
    assert proof.parity < 1e-5
    assert model.dim == DIM


def test_of_a_graph_within_a_graph_everything_is_seen(tmp_path: Path) -> None:
    inner = helper.make_node("Identity", ["a"], ["b"])
    for depth in range(3):
        inner = helper.make_node(
            "If", ["a"], ["b"], domain=f"d{depth}", then_branch=helper.make_graph([inner], "g", [], [])
        )
    content = helper.make_model(helper.make_graph([inner], "g", [], [])).SerializeToString()
    assert read_graph(content).operators == {("", "Identity"), ("d0", "If"), ("d1", "If"), ("d2", "If")}
    for _ in range(DEPTH_MAX):
        inner = helper.make_node("If", ["a"], ["b"], then_branch=helper.make_graph([inner], "g", [], []))
    with pytest.raises(GraphError, match="nested more than"):
        read_graph(helper.make_model(helper.make_graph([inner], "g", [], [])).SerializeToString())


@pytest.mark.parametrize("name", [ENCODER, ATTENTION])
def test_what_is_read_of_a_graph_is_what_onnx_reads(name: str) -> None:
    file = Path(__file__).parents[2] / "onnx_models" / "artifacts" / "demo" / name
    proto = onnx.load(file)
    found = read_graph(file.read_bytes())
    assert found.operators == {(node.domain, node.op_type) for node in proto.graph.node}
    assert found.opsets == {each.domain: each.version for each in proto.opset_import}
    assert (found.nodes, found.outside, found.functions) == (len(proto.graph.node), [], 0)


@pytest.mark.parametrize("tag", [b"\xba\x80\x80\x80\x10", b"\x02"], ids=["graph, and a bit beyond 32", "no field"])
def test_a_tag_that_protobuf_reads_in_another_way_is_no_graphs(tag: bytes) -> None:
    loop = helper.make_graph([helper.make_node("Loop", [""], [""])], "g", [], []).SerializeToString()
    harmless = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    with pytest.raises(GraphError, match="tag"):
        read_graph(harmless + tag + bytes([len(loop)]) + loop)


FIELDS = st.one_of(
    st.builds(lambda at, value: bytes([at << 3, value]), st.integers(1, 8), st.integers(0, 127)),
    st.builds(
        lambda at, name: bytes([at << 3 | 1]) + name, st.integers(1, 8), st.sampled_from([b"Identity", b"LeakyRel"])
    ),
    st.builds(
        lambda at, name: bytes([at << 3 | 2, len(name)]) + name,
        st.sampled_from([1, 2, 3, 4, 6, 7, 8]),  # 5 is of messages: attributes
        st.sampled_from([b"Loop", b"Add", b"", b"d"]),
    ),
    st.builds(lambda at, name: bytes([at << 3 | 5]) + name, st.integers(1, 8), st.sampled_from([b"Relu", b"Gemm"])),
)
"""Of every wire type, right or wrong where it stands: protobuf passes over those that are wrong."""


@given(st.lists(FIELDS, max_size=6).map(b"".join), st.lists(FIELDS, max_size=6).map(b"".join))
def test_an_operator_and_its_set_are_those_that_protobuf_reads_or_none(node: bytes, opset: bytes) -> None:
    content = bytes([7 << 3 | 2, len(node) + 2, 1 << 3 | 2, len(node)]) + node + bytes([8 << 3 | 2, len(opset)]) + opset
    with contextlib.suppress(GraphError):
        found, proto = read_graph(content), onnx.ModelProto.FromString(content)
        assert found.operators == {(each.domain, each.op_type) for each in proto.graph.node}
        assert found.opsets == {each.domain: each.version for each in proto.opset_import}


def test_a_graph_is_onnx_to_the_runtime_too_whatever_its_file_begins_with(tmp_path: Path) -> None:
    unread = b"\xa2\x06\x05.ORTM"  # a field that ONNX does not have; at this place it is the mark of another format

    def mark(graphs: dict[str, Any]) -> None:
        graphs[ATTENTION] = Written(unread + graphs[ATTENTION].SerializeToString())

    _, proof = prove(toy_model(tmp_path, graphs=mark), halt())
    assert proof.parity < 1e-5


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_none(content: bytes) -> None:
    with contextlib.suppress(GraphError):
        assert read_graph(content).nodes <= len(content)
