"""What commands load: a second of imports is most of what a short one takes."""

import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

NOBODY = "127.0.0.1:1"


def test_help_and_version_answer_without_loading_what_commands_need() -> None:
    heavy = "numpy pydantic river scipy pandas onnxruntime pyarrow faust aiokafka confluent_kafka"
    asked = (
        f"import sys; from streams.cli import app; app(sys.argv[1:], standalone_mode=False); "
        f"print(*{{name.partition('.')[0] for name in sys.modules}} & set('{heavy}'.split()))"
    )
    for option, said in (
        ("--help", "deserve a person's attention next"),
        ("--version", f"salience {version('salience')}"),
    ):
        told = subprocess.run([sys.executable, "-c", asked, option], capture_output=True, text=True, check=True).stdout
        assert said in told
        assert told.splitlines()[-1] == ""


def test_who_asks_a_broker_loads_no_library_that_learns_or_serves(tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    commands = (
        "topics check, topics create, topics acls --role worker --principal User:w --apply, campaigns, model list, "
        "experiment list, experiment report x, dead-letters list, privacy erase somebody, tail clicks, "
        f"experiment referee --once, lag serve --port {taken.getsockname()[1]}"
    )
    asked = (
        "import sys; from streams import topic_admin; from streams.cli import app; topic_admin.ANSWER_S = 0.01\n"
        f"for command in {commands!r}.split(', '):\n"
        f"    try: app([*command.split(), '--bootstrap', {NOBODY!r}])\n"
        "    except SystemExit as ended: print(ended.code)\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'faust', 'river', 'scipy', 'pandas', 'pyarrow'})"
    )
    home = os.environ | {"SALIENCE_HOME": str(tmp_path)}
    with taken:
        told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=home)
    assert told.stdout.splitlines() == [*["1"] * len(commands.split(", ")), ""], told.stderr


def test_a_supervisor_loads_nothing_of_what_it_restarts() -> None:
    asked = (
        "import sys; from streams.cli import app; from streams.supervisor import Supervisor\n"
        "Supervisor.run = lambda _: 7\n"
        "try: app(['worker', '--supervise'])\n"
        "except SystemExit as ended: print(ended.code)\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'faust', 'river', 'scipy', 'onnxruntime'})"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["7", ""], told.stderr


def test_no_command_loads_statistics_that_it_does_not_use(tmp_path: Path) -> None:
    commands = ["outcomes", "console", "explain 0-1a22-81e-ce3204e5831d6fd5", "worker"]
    asked = (
        "import sys; from streams import cli, topic_admin; topic_admin.ANSWER_S = 0.01\n"
        f"for command in {commands}:\n"
        f"    sys.argv[1:] = [*command.split(), '--bootstrap', {NOBODY!r}]\n"
        "    try: cli.main()\n"
        "    except SystemExit as ended: print(ended.code)\n"
        "from streams.app import create_app; from streams.settings import Settings\n"
        "from tests.unit.lanes import IDENTITY\n"
        "create_app(Settings(), IDENTITY)  # for which Faust looks through all modules\n"
        "held = lambda: [name in sys.modules for name in ('river.proba.gaussian', 'scipy.stats._stats_py')]\n"
        "print(held()); from river import proba; print(proba.Gaussian().cdf(0.0), held())\n"
        "import scipy.stats; print(scipy.stats.norm.cdf(0.0), hasattr(scipy.stats, 'no such'))"
    )
    home = os.environ | {"SALIENCE_HOME": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=home)
    said = [*["1"] * len(commands), "[False, False]", "0.0 [True, True]", "0.5 False"]
    assert told.stdout.splitlines() == said, told.stderr


def test_what_lies_within_a_part_that_was_put_off_loads_it_first() -> None:
    asked = (
        "import sys; from streams.sparing import put_off; put_off()\n"
        "import scipy.stats._stats_py, river.proba.gaussian\n"
        "print(*{type(sys.modules[name]).__name__ for name in ('scipy.stats', 'river.proba')})"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["module"], told.stderr
