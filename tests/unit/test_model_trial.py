"""Models tried in a process of their own: what it says, and what becomes of one that kills it or never ends."""

import asyncio
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from scoring.attention import load
from scoring.manifest import ATTENTION, ModelError
from scoring.proof import Proof
from streams.models import trial
from streams.models.trial import try_model
from streams.settings import Settings
from tests.models import Graphs, toy_model


def tried(directory: Path, **settings: object) -> Proof:
    return asyncio.run(try_model(directory, Settings(**settings)))  # type: ignore[arg-type]  # by name


def test_a_model_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    proof = tried(toy_model(tmp_path))
    assert proof.version.startswith("toy-")
    assert proof.parity < 1e-5


def test_the_pace_that_a_trial_tells_is_measured_and_not_rounded_to_the_clocks_ticks(tmp_path: Path) -> None:
    directory = toy_model(tmp_path)
    paces = {tried(directory).score_ms for _ in range(6)}
    assert 0 not in paces
    assert len(paces) == 6


def test_a_model_that_does_not_is_refused_in_the_words_of_its_reason(tmp_path: Path) -> None:
    directory = toy_model(tmp_path, golden=lambda golden: golden.update(logit=golden["logit"] + 1))
    with pytest.raises(ModelError, match=r"differ from the golden ones by 1; expected at most 0.0001; .*salience"):
        tried(directory)


@pytest.mark.parametrize("dtype", ["<U32", "S32", "M8[s]", "<i8", "<c8", "bool"])
@pytest.mark.parametrize("name", ["vector", "logit", "attention"])
def test_a_model_whose_golden_outputs_are_no_floating_point_numbers_is_refused(
    tmp_path: Path, name: str, dtype: str
) -> None:
    def change(golden: dict[str, np.ndarray]) -> None:
        golden[name] = np.zeros(golden[name].shape, dtype=dtype)

    directory = toy_model(tmp_path, golden=change)
    with pytest.raises(ModelError, match=rf"golden\.npz has {name} .*; expected floating-point numbers; "):
        load(directory)


def _huge(graphs: Graphs) -> None:
    """Sixteen thousand million numbers, which nobody reads."""
    graph = graphs[ATTENTION].graph
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1 << 17, 1 << 17])
    graph.initializer.append(shape)
    graph.node[0].output[0] = "plain"
    graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("Add", ["plain", "sum"], ["logit"]),
        ]
    )


def test_a_model_that_wants_more_memory_than_it_may_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected"):
        tried(toy_model(tmp_path, graphs=_huge), model_trial_bytes=2**30)


def _busy(graphs: Graphs) -> None:
    """Products of large matrices, one after the other, that take hours."""
    graph = graphs[ATTENTION].graph
    graph.initializer.append(helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [2_048, 2_048]))
    _multiply(graph)


def _busy_with_whoever_saw_much(graphs: Graphs) -> None:
    """The same, where somebody has had more impressions than any golden person."""
    graph = graphs[ATTENTION].graph
    graph.initializer.extend(
        [
            helper.make_tensor("first", onnx.TensorProto.INT64, [], [0]),
            helper.make_tensor("size", onnx.TensorProto.INT64, [2], [2_048, 2_048]),
            helper.make_tensor("much", onnx.TensorProto.FLOAT, [], [1.0]),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Gather", ["context", "first"], ["impressions"], axis=1),
            helper.make_node("ReduceMax", ["impressions"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "much"], ["saw_much"]),
            helper.make_node("Cast", ["saw_much"], ["times"], to=onnx.TensorProto.INT64),
            helper.make_node("Mul", ["size", "times"], ["shape"]),
        ]
    )
    _multiply(graph)


def _multiply(graph: onnx.GraphProto) -> None:
    """Add to the logit, which stays as it is, what is left of products of matrices of a ``shape``."""
    one = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32))
    graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["m0"], value=one))
    graph.node.extend(helper.make_node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"]) for at in range(5_000))
    graph.node.append(helper.make_node("ReduceSum", ["m5000"], ["total"], keepdims=0))
    graph.node[0].output[0] = "plain"
    graph.node.append(helper.make_node("Sub", ["total", "total"], ["nothing"]))
    graph.node.append(helper.make_node("Add", ["plain", "nothing"], ["logit"]))


@pytest.mark.parametrize("graphs", [_busy, _busy_with_whoever_saw_much])
def test_a_model_that_does_not_end_is_ended(tmp_path: Path, graphs: Callable[[Graphs], None]) -> None:
    with pytest.raises(ModelError, match=r"it was not done within 3 s; .*SALIENCE_MODEL_TRIAL_S"):
        tried(toy_model(tmp_path, graphs=graphs), model_trial_s=3)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("import os; os.kill(os.getpid(), 11)", "status -11"),
        ("raise SystemExit(3)", "status 3"),
        ("print('x' * 1_000_000)", "status 0"),
    ],
)
def test_a_model_that_kills_its_process_is_refused_and_nobody_else_is_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, status: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {trial.sys.executable} -c "{textwrap.dedent(program)}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))
    with pytest.raises(ModelError, match=f"the process that tried it ended with {status}"):
        tried(tmp_path)


def test_the_process_that_tries_gives_way_whatever_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = min(os.getpriority(os.PRIO_PROCESS, 0) + trial.NICENESS, 19)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nuntil [ "$(nice)" = {usual} ]; do :; done\nprintf \'{{"refused": "gave way"}}\'\n')
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))
    with pytest.raises(ModelError, match=r"^gave way$"):
        tried(tmp_path, model_trial_s=10)


def test_a_process_that_only_waits_is_ended_with_the_time_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bound of processor time ends one that uses none, and its worker would get no other model."""
    python, pid = tmp_path / "python", tmp_path / "pid"
    python.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 120\n")
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))

    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await try_model(tmp_path, Settings(model_trial_s=1))

    with pytest.raises(ModelError, match="it was not done within 1 s"):
        asyncio.run(within_a_minute())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_process_that_tries_is_told_its_bounds_which_hold_though_its_worker_is_killed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf \'{"refused": "%s"}\' "$*"\n')
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))
    with pytest.raises(ModelError) as refused:
        tried(tmp_path, model_score_ms_max=7.5, model_trial_bytes=2**30, model_trial_s=20)
    assert str(refused.value).split()[-4:] == [str(tmp_path), "7.5", str(2**30), "21"]


def test_the_process_that_tries_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf \'{"refused": "%s"}\' "$SALIENCE_KAFKA_SASL_PASSWORD.$PATH"\n')
    python.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(python))
    monkeypatch.setenv("SALIENCE_KAFKA_SASL_PASSWORD", "hunter2")
    with pytest.raises(ModelError) as refused:
        tried(tmp_path)
    assert str(refused.value).startswith("./")


def test_what_lies_in_the_workers_folder_is_not_run_by_the_process_that_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, shared = toy_model(tmp_path / "model"), tmp_path / "shared"
    shared.mkdir()
    (shared / "msgspec.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(shared)
    assert tried(directory).version.startswith("toy-")
