"""What an ONNX file asks for, as far as it must be known before a runtime sees it."""

import onnx
import pytest
from onnx import helper

from scoring import graph
from scoring.graph import FIELDS_MAX, GraphError, read_graph


def content_of(*nodes: onnx.NodeProto) -> bytes:
    model = helper.make_model(helper.make_graph(nodes, "g", [], []), opset_imports=[helper.make_opsetid("", 18)])
    return model.SerializeToString()


def test_an_operator_that_draws_at_random_where_an_input_says_so_must_not_run() -> None:
    """Whether it does may be computed from how many are asked for at once, so that no trial comes upon it."""
    found = read_graph(content_of(helper.make_node("Dropout", ["logit0", "share", "training"], ["logit"])))
    ((uses, expected),) = found.objections()
    assert uses == "uses Dropout"
    assert "chance" in expected


def test_a_file_of_more_fields_than_a_graph_needs_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = content_of(helper.make_node("Identity", ["a"], ["b"]))
    again = b"\x08\x0a"  # ModelProto.ir_version, which is read over and over
    with pytest.raises(GraphError, match=f"more than {FIELDS_MAX:,} fields"):
        read_graph(model + again * FIELDS_MAX)
    fields = read_graph(model).fields
    monkeypatch.setattr(graph, "FIELDS_MAX", fields)
    read_graph(model)
    monkeypatch.setattr(graph, "FIELDS_MAX", fields - 1)
    with pytest.raises(GraphError, match="fields"):
        read_graph(model)
