"""``salience verify`` of models that `scoring.attention.load` refuses: the reason, and no traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scoring.manifest import read_manifest
from streams.cli import app
from tests.models import VOCABULARY, Change, toy_model


def _empty(golden: dict[str, Any]) -> None:
    for name in golden:
        golden[name] = golden[name][:0]


def _narrow(golden: dict[str, Any]) -> None:
    golden["interest"] = golden["interest"][:, :-1]


def _a_number(golden: dict[str, Any]) -> None:
    golden["tokens"] = golden["tokens"][0, 0]


def _boundless(manifest: dict[str, Any]) -> None:
    manifest["vocabulary"] = 2**40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"golden": _empty}, "not empty"),
        ({"golden": _narrow}, "the graphs do not run"),
        ({"golden": _a_number}, "the graphs do not run"),
        ({"manifest": _boundless}, "the graphs do not run"),
    ],
    ids=["empty tensors", "a tensor of another shape", "a tensor of no items", "a table that nobody holds"],
)
def test_a_model_that_cannot_be_compared_ends_with_1_and_the_reason(
    tmp_path: Path, changes: dict[str, Change], reason: str
) -> None:
    result = CliRunner().invoke(app, ["verify", "--model", str(toy_model(tmp_path, **changes)), "--json"])
    assert result.exit_code == 1
    assert reason in json.loads(result.stdout)["error"]
    assert "Traceback" not in result.stderr


def _noted(golden: dict[str, Any]) -> None:
    golden["note"] = golden["logit"].dtype.type(1)


def test_a_number_beside_the_golden_tensors_is_passed_over_as_workers_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "--model", str(toy_model(tmp_path, golden=_noted)), "--json"])
    assert result.exit_code == 0, result.output


def _more(golden: dict[str, Any]) -> None:
    golden["viewed"] = golden["logit"].copy()


def test_a_model_whose_graph_lacks_an_outcome_of_its_golden_tensors_ends_with_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "--model", str(toy_model(tmp_path, golden=_more)), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["max_abs_diff"] is None


@pytest.mark.train
def test_a_network_is_made_only_of_as_large_a_table_as_the_graph_holds(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: make setup-train")
    from onnx_models.export import restore

    directory = toy_model(tmp_path, manifest=_boundless)
    with pytest.raises(ValueError, match=rf"tables of \[\[{VOCABULARY}, 4\]\]; expected one of \[{2**40}, 4\]"):
        restore(directory, read_manifest(directory))
