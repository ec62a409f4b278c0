"""What must pass before anything lands does not pass without what it is to try."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import VARIABLE, lacking

ROOT = Path(__file__).parents[2]
TRAINING_ALONE = frozenset({"torch", "onnx", "lightgbm", "sklearn", "pandas"})
"""Packages that `make setup` does not install, by what is imported."""
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="the gate is a bash script")


class Machine:
    """Nothing but bash and what a test puts there; ``make`` notes how it was called, and what tests need then."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._calls = folder / "bin", folder / "calls"
        self._programs.mkdir()
        self._calls.touch()
        for name in ("bash", "dirname", "mkdir", "touch"):
            (self._programs / name).symlink_to(str(shutil.which(name)))
        self.has("make", f'echo "$1 needs$SALIENCE_TESTS_NEED" >> {self._calls}')

    def has(self, name: str, shell: str = "exit 0") -> None:
        program = self._programs / name
        program.write_text(f"#!{BASH}\n{shell}\n")
        program.chmod(0o755)

    def gate(self, **variables: str) -> int:
        environment = {"PATH": str(self._programs), **variables}
        command = [str(BASH), str(ROOT / ".ci" / "run")]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    @property
    def made(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


EVERYTHING = [f"{target} needs kafka promtool chromium" for target in ("test", "test-train", "chaos")]


def test_the_gate_tries_everything_where_everything_is_there(machine: Machine) -> None:
    for name in ("java", "mvn", "promtool", "chromium"):
        machine.has(name)
    assert (machine.gate(), machine.made) == (0, EVERYTHING)


def test_the_gate_installs_what_is_missing(machine: Machine) -> None:
    machine.has("apt-get")
    assert (machine.gate(), machine.made) == (0, EVERYTHING)


@pytest.mark.parametrize("fails", ["update", "install"])
def test_the_gate_fails_where_what_is_missing_cannot_be_installed(machine: Machine, fails: str) -> None:
    machine.has("apt-get", f"[[ $1 != {fails} ]] || exit 100")
    assert machine.gate() != 0
    assert machine.made == []


def test_the_gate_does_without_what_it_is_told_to(machine: Machine) -> None:
    assert machine.gate(SALIENCE_CI_WITHOUT="kafka promtool chromium") == 0
    assert machine.made == ["test needs", "test-train needs"]


def test_what_is_lacking_skips_a_test_and_fails_it_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "promtool")
    with pytest.raises(pytest.skip.Exception, match="no Java"):
        lacking("kafka", "no Java")
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        lacking("promtool", "not installed")


@pytest.mark.parametrize(("need", "status", "said"), [("kafka", 1, "no `java` is found"), ("", 0, "embedded broker:")])
def test_without_java_tests_run_on_the_embedded_broker_unless_they_must_not(
    tmp_path: Path, need: str, status: int, said: str
) -> None:
    environment = os.environ | {"PATH": str(tmp_path), VARIABLE: need, "PYTHONPATH": str(ROOT)}
    environment.pop("JAVA_HOME", None)
    test = "tests/integration/test_brokers.py::test_created_topics_pass_the_check"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test, "-k", "kafka"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout


def test_what_a_shell_sets_for_programs_changes_nothing_that_tests_expect() -> None:
    sets = {
        "FORCE_COLOR": "1",
        "http_proxy": "http://127.0.0.1:9",
        "SALIENCE_WEB_TOKEN": "s3cret",
    }
    tests = [
        "tests/unit/test_screen.py::test_an_explanation_shows_a_user_and_what_differs_as_they_are",
        "tests/unit/test_referee_vitals.py::test_a_referee_is_well_once_it_has_judged_by_all_that_was_there",
        "tests/unit/test_settings.py::test_a_file_of_a_secret_that_is_not_there_is_told_by_its_setting",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | sets,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def left_out(source: str) -> list[str]:
    """Tests in a file's ``source`` that `make test` leaves out for want of a package, and `make test-train` by mark.

    Followed are names: of a mark or a flag that asks for the package, of a fixture or a helper that does. "" stands for
    the whole file.
    """
    asking, found = set(TRAINING_ALONE), list[str]()
    body = [(one, ast.unparse(one)) for one in ast.parse(source).body]
    if any(text.startswith("pytestmark =") and "mark.train" in text for _, text in body):
        return []
    for one, text in body:
        nodes = [*ast.walk(one)]
        asked = {
            argument.value.partition(".")[0]
            for call in nodes
            if isinstance(call, ast.Call)
            and ast.unparse(call.func).endswith(("importorskip", "find_spec", "usefixtures"))
            for argument in call.args
            if isinstance(argument, ast.Constant)
        }
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        if "mark.train" in text or not asking & (asked | names - TRAINING_ALONE):
            continue
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            (found.append if one.name.lower().startswith("test") else asking.add)(one.name)
        elif isinstance(one, ast.Assign) and "importorskip" not in text and not text.startswith("pytestmark ="):
            asking |= {target.id for target in one.targets if isinstance(target, ast.Name)}
        else:
            found.append("")
    return found


def test_a_test_that_is_left_out_without_a_package_of_training_is_among_those_that_the_training_tests_are() -> None:
    """Else nothing tries it: the other tests run where there is no PyTorch, and training tests are chosen by mark."""
    files = [*(ROOT / "tests").rglob("*.py")]
    assert files
    assert {file.name: found for file in files if (found := left_out(file.read_text()))} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('torch = pytest.importorskip("torch")\ndef test_a(): ...', [""]),
        ('pytest.importorskip("sklearn.metrics")\npytestmark = pytest.mark.train\ndef test_a(): ...', []),
        ('def test_a():\n    pytest.importorskip("torch")\ndef test_b(): ...', ["test_a"]),
        ('@pytest.mark.train\ndef test_a():\n    pytest.importorskip("torch")', []),
        ('HAS = find_spec("torch")\nWITH = mark.skipif(not HAS)\n@WITH\ndef test_a(): ...', ["test_a"]),
        ('WITH = mark.skipif(not find_spec("onnx"))\npytestmark = WITH', [""]),
        ('WITH = mark.skipif(not find_spec("torch"))\n@WITH\n@pytest.mark.train\ndef test_a(): ...', []),
        ('def net():\n    importorskip("torch")\ndef test_a(net): ...\ndef test_b():\n    net()', ["test_a", "test_b"]),
        ('def net():\n    importorskip("torch")\n@mark.usefixtures("net")\ndef test_a(): ...', ["test_a"]),
        ('class TestNet:\n    def test_a(self):\n        importorskip("pandas")', ["TestNet"]),
        ('def test_a():\n    pytest.importorskip("pyarrow")', []),
        ('def test_a(torch):\n    assert "torch"', []),
    ],
)
def test_single_tests_that_nothing_tries_are_seen_by_whatever_they_ask(source: str, found: list[str]) -> None:
    assert left_out(source) == found
