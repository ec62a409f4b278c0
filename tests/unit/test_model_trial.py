"""Models tried in a process of their own: what it says, and what becomes of one that kills it or never ends."""

import ast
import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from scoring.attention import load
from scoring.manifest import ATTENTION, ModelError
from scoring.proof import Proof
from streams.control import Control
from streams.models.switch import ModelSwitch
from streams.models.trial import NICENESS, NoTrialError, TrialServer
from streams.settings import Settings
from tests.models import Graphs, toy_model
from tests.unit.test_model_switch import AtOnce, _ends
from tests.unit.test_models import engine_of


def tried(directory: Path, **settings: object) -> Proof:
    async def once() -> Proof:
        async with TrialServer(Settings(**settings)) as trials:  # type: ignore[arg-type]  # by name
            return await trials.try_model(directory)

    return asyncio.run(once())


async def said_of(directory: Path, trials: TrialServer) -> str:
    """Why a model is refused."""
    with pytest.raises(ModelError) as refused:
        await trials.try_model(directory)
    return str(refused.value)


def first_of_all(folder: Path, program: str) -> str:
    """The path of modules with which Python runs a program before any other."""
    (folder / "sitecustomize.py").write_text(program)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has servers run a program where they would try a model: it can ``say`` something, and has the model's ``name``.

    As in a worker, `streams` comes first: it keeps onnxruntime from reports to its maker, and from a thread for them.
    """

    def run(program: str) -> None:
        lines = textwrap.indent(textwrap.dedent(program), "    ")
        customised = (
            "import os, resource, signal, time\n"
            "import streams\n"
            "import scoring.proof as proof\n"
            "from scoring.manifest import ModelError\n"
            "def say(what):\n    raise ModelError(str(what), 'x', 'y')\n"
            f"def prove(place, clock, score_ms_max):\n    name = place.name\n{lines}\n"
            "proof.prove = prove\n"
        )
        monkeypatch.setenv("PYTHONPATH", first_of_all(tmp_path, customised))

    return run


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A pipe with a name. Who reads it waits for who writes to it, and comes to its end when that process is gone."""
    os.mkfifo(pipe := tmp_path / "begun")
    return pipe


def test_a_model_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    proof = tried(toy_model(tmp_path))
    assert proof.version.startswith("toy-")
    assert proof.parity < 1e-5


async def test_the_pace_that_a_trial_tells_is_measured_and_not_rounded_to_the_clocks_ticks(tmp_path: Path) -> None:
    directory = toy_model(tmp_path)
    async with TrialServer(Settings()) as trials:
        paces = {(await trials.try_model(directory)).score_ms for _ in range(6)}
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
        ("os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise SystemExit(3)", "status 1"),
        ("os._exit(3)", "status 3"),
        ("os.write(1, b'x' * 1_000_000)\nos._exit(0)", "status 0"),
    ],
)
async def test_a_model_that_kills_its_process_is_refused_and_nobody_else_is_hurt(
    tmp_path: Path, instead: Callable[[str], None], program: str, status: str
) -> None:
    instead(f"if name == 'good': say(os.getppid())\n{program}")
    async with TrialServer(Settings()) as trials:
        server = await said_of(tmp_path / "good", trials)
        assert f"the process that tried it ended with {status}" in await said_of(tmp_path / "bad", trials)
        assert await said_of(tmp_path / "good", trials) == server


async def test_each_model_is_tried_in_a_process_of_its_own_of_one_that_has_one_thread(
    tmp_path: Path, instead: Callable[[str], None]
) -> None:
    """What a fork takes over from other threads may be locked for ever."""
    instead("say(f'{os.getpid()} of {os.getppid()} with {len(os.listdir(f\"/proc/{os.getppid()}/task\"))}')")
    async with TrialServer(Settings()) as trials:
        first, second = [(await said_of(tmp_path, trials)).split(";")[0].split() for _ in range(2)]
    assert first[0] != second[0]
    assert first[1:] == second[1:]
    assert first[-1] == "1"


async def test_a_trial_has_no_file_of_the_server(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead(
        """
        with os.scandir("/proc/self/fd") as files:
            say(sorted((int(file.name), os.readlink(file.path).split(":")[0]) for file in files))
        """
    )
    async with TrialServer(Settings()) as trials:
        files = ast.literal_eval((await said_of(tmp_path, trials)).split(";")[0])
    assert [file for _, file in files[:3]] == ["/dev/null", "pipe", "/dev/null"]
    assert all(file.startswith("/proc/") for _, file in files[3:]), "of itself alone, where it looks for them"


def test_the_process_that_tries_gives_way_whatever_it_runs(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead("say(os.getpriority(os.PRIO_PROCESS, 0))")
    usual = min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)
    with pytest.raises(ModelError, match=rf"^{usual};"):
        tried(tmp_path)


async def test_a_trial_that_only_waits_is_ended_with_the_time_that_it_has(
    tmp_path: Path, instead: Callable[[str], None]
) -> None:
    """No bound of processor time ends one that uses none, and its worker would get no other model."""
    instead("if name == 'good': say(os.getppid())\nos.write(1, b'x')\ntime.sleep(120)")
    async with TrialServer(Settings(model_trial_s=1)) as trials:
        server = await said_of(tmp_path / "good", trials)
        assert "it was not done within 1 s" in await said_of(tmp_path / "bad", trials)
        assert await said_of(tmp_path / "good", trials) == server


@pytest.mark.parametrize(
    ("sent", "why"), [("SIGSTOP", "did not answer within 2 s"), ("SIGKILL", "ended with status -9")]
)
async def test_a_server_that_is_stopped_or_killed_ends_with_its_trial_and_says_nothing_of_the_model(
    tmp_path: Path, instead: Callable[[str], None], begun: Path, sent: str, why: str
) -> None:
    instead(
        f"""
        if name == 'good':
            say(os.getppid())
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        pipe = open({str(begun)!r}, 'w')
        os.kill(os.getppid(), signal.{sent})
        time.sleep(10)
        pipe.write('the trial goes on')
        """
    )
    async with TrialServer(Settings(model_trial_s=1)) as trials:
        server = await said_of(tmp_path / "good", trials)
        trial = asyncio.create_task(trials.try_model(tmp_path / "bad"))
        with await asyncio.to_thread(begun.open) as pipe:
            with pytest.raises(NoTrialError, match=rf"^the model was not tried to the end: the process for it {why}; "):
                await trial
            assert await asyncio.to_thread(pipe.read) == ""
        assert await said_of(tmp_path / "good", trials) != server
        with pytest.raises(ProcessLookupError):
            os.kill(int(server.split(";")[0]), 0)


async def test_models_that_come_at_once_while_the_server_begins_are_tried_by_it_one_after_the_other(
    tmp_path: Path, instead: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = asyncio.create_subprocess_exec, []

    async def noted(*command: Any, **how: Any) -> asyncio.subprocess.Process:
        begun.append(await begin(*command, **how))
        return begun[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    instead("say(f'{name} by {os.getppid()}')")
    async with TrialServer(Settings()) as trials:
        _, *told = await asyncio.gather(trials.begin(), *(said_of(tmp_path / name, trials) for name in ("one", "two")))
    (server,) = begun
    assert [why.split(";")[0] for why in told] == [f"{name} by {server.pid}" for name in ("one", "two")]


async def test_a_server_that_cannot_begin_with_its_worker_does_so_with_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TrialServer(Settings()) as trials:
        with monkeypatch.context() as without:
            without.setattr(sys, "executable", str(tmp_path / "missing"))
            await trials.begin()
        assert (await trials.try_model(toy_model(tmp_path / "model"))).version.startswith("toy-")


async def test_a_server_that_was_killed_while_nothing_was_tried_is_missed_by_nobody(
    tmp_path: Path, instead: Callable[[str], None]
) -> None:
    instead("say(os.getppid())")
    async with TrialServer(Settings()) as trials:
        server = await said_of(tmp_path, trials)
        os.kill(int(server.split(";")[0]), signal.SIGKILL)
        assert trials._process is not None
        await trials._process.wait()
        assert await said_of(tmp_path, trials) != server


async def test_a_trial_that_is_cancelled_ends_with_its_server(
    tmp_path: Path, instead: Callable[[str], None], begun: Path
) -> None:
    instead(f"pipe = open({str(begun)!r}, 'w')\nprint(os.getppid(), file=pipe, flush=True)\ntime.sleep(120)")
    async with TrialServer(Settings()) as trials:
        trial = asyncio.create_task(trials.try_model(tmp_path))
        with await asyncio.to_thread(begun.open) as pipe:
            server = int(await asyncio.to_thread(pipe.readline))
            trial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trial
            assert await asyncio.to_thread(pipe.read) == ""
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


async def test_a_switch_has_its_server_from_its_start_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", first_of_all(tmp_path, f"pipe = open({str(begun)!r}, 'w')"))
    models = engine_of(load(toy_model(tmp_path / "model"))).models
    async with ModelSwitch(Settings(home=tmp_path), Control(), models, AtOnce(), _ends):
        pipe = await asyncio.to_thread(begun.open)
    with pipe:
        assert await asyncio.to_thread(pipe.read) == ""


def test_a_server_ends_though_its_worker_is_killed(tmp_path: Path, begun: Path) -> None:
    program = """
        import asyncio, os, sys
        from streams.models.trial import TrialServer
        from streams.settings import Settings

        async def work():
            os.environ["PYTHONPATH"] = sys.argv[1]
            await TrialServer(Settings()).begin()
            await asyncio.sleep(120)

        asyncio.run(work())
    """
    path = first_of_all(tmp_path, f"pipe = open({str(begun)!r}, 'w')")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), path]) as worker, begun.open() as pipe:
        worker.kill()
        assert pipe.read() == ""


def test_a_trial_has_the_bounds_that_the_worker_has_set(tmp_path: Path, instead: Callable[[str], None]) -> None:
    """They hold though the worker is killed meanwhile."""
    limits = "resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)"
    instead(f"say([score_ms_max, *({limits}), signal.getitimer(signal.ITIMER_REAL)[0] // 1])")
    with pytest.raises(ModelError) as refused:
        tried(tmp_path, model_score_ms_max=7.5, model_trial_bytes=2**30, model_trial_s=20)
    assert str(refused.value).startswith(f"[7.5, {2**30}, 0, 0, 19.0];")


def test_the_process_that_tries_has_no_secrets(
    tmp_path: Path, instead: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    instead("say(sorted(os.environ))")
    monkeypatch.setenv("SALIENCE_KAFKA_SASL_PASSWORD", "hunter2")
    with pytest.raises(ModelError, match="PYTHONPATH") as refused:
        tried(tmp_path)
    assert "SALIENCE" not in str(refused.value)


def test_what_lies_in_the_workers_folder_is_not_run_by_the_process_that_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, shared = toy_model(tmp_path / "model"), tmp_path / "shared"
    shared.mkdir()
    (shared / "msgspec.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(shared)
    assert tried(directory).version.startswith("toy-")
