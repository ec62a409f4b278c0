"""A broker that is started is ours, is told of, and answers; what cannot be had so leaves nothing running."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.brokers import Broker, BrokerError, apache, running
from deploy.brokers import embedded as tansu
from deploy.brokers.apache import ApacheKafka
from deploy.brokers.embedded import EmbeddedBroker
from deploy.brokers.jars import default_cache, fetch
from deploy.brokers.process import Process
from deploy.brokers.ready import free_port, wait_until_answers
from streams.cli import app
from streams.cli.ending import undone_when_told_to_end
from tests.integration.lanes import DEADLINE_S

pytestmark = pytest.mark.integration


@pytest.fixture
def _java(kafka: Broker) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("starts Apache Kafka, and it could not be had")


def ports_of(broker: Broker) -> set[int]:
    return {int(address.rpartition(":")[2]) for address in broker.bootstrap.split(",")}


@pytest.mark.parametrize("name", ["kafka", "embedded"])
def test_a_stranger_who_answers_at_our_address_is_not_taken_for_our_broker(
    name: str, request: pytest.FixtureRequest
) -> None:
    stranger: Broker = request.getfixturevalue(name)
    with pytest.raises(BrokerError, match="Another broker has"):
        wait_until_answers(stranger.bootstrap, "our cluster", 1, DEADLINE_S, lambda: None)


def test_the_embedded_broker_draws_another_port_where_a_stranger_was_faster(
    embedded: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [*ports_of(embedded)]
    monkeypatch.setattr(tansu, "free_port", lambda: taken.pop() if taken else free_port())
    with EmbeddedBroker(tmp_path) as broker:
        assert not taken
        assert not ports_of(broker) & ports_of(embedded)
        assert all(Process.of(pid).alive() for pid in broker.pids)


@pytest.mark.usefixtures("_java")
def test_apache_kafka_draws_other_ports_where_a_stranger_was_faster(tmp_path: Path) -> None:
    class Overtaken(ApacheKafka):
        """A stranger listens on its port between the draw and the first node."""

        stranger: EmbeddedBroker | None = None

        def _format(self) -> None:
            super()._format()
            if self.stranger is None:
                self.stranger = EmbeddedBroker(tmp_path / "stranger", *ports_of(self))
                self.stranger.start()

    broker = Overtaken(tmp_path / "ours")
    try:
        broker.start()
        assert broker.stranger is not None
        assert not ports_of(broker) & ports_of(broker.stranger)
        assert [Process.of(pid).alive() for pid in broker.pids] == [True]
    finally:
        broker.stop()
        if broker.stranger is not None:
            broker.stranger.stop()


@pytest.mark.usefixtures("_java")
def test_where_jars_are_not_whole_the_folder_to_remove_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    (cache / fetch(default_cache(), lambda _: None).name).mkdir(parents=True)

    with pytest.raises(BrokerError, match=f"rm -r '{cache}/jars-"):
        ApacheKafka(tmp_path / "data", cache=cache).start()


@pytest.mark.usefixtures("_java")
def test_a_format_shares_the_classes_that_the_first_has_left_unless_they_are_torn_and_a_node_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = fetch(default_cache(), lambda _: None)
    ours = tmp_path / jars.name
    ours.mkdir()
    for jar in jars.glob("*.jar"):
        (ours / jar.name).symlink_to(jar)

    with ApacheKafka(tmp_path / "first", cache=tmp_path) as broker:
        (archive,) = ours.glob("classes-*")
        assert str(archive) not in Path(f"/proc/{broker.pids[0]}/maps").read_text()

    torn = archive.read_bytes()[: archive.stat().st_size // 10]
    archive.unlink()
    archive.write_bytes(torn)
    monkeypatch.chdir(tmp_path)  # where Java reports its own end
    with pytest.raises(BrokerError, match=f"have them fetched anew: rm -r {ours}"):
        ApacheKafka(tmp_path / "second", cache=tmp_path).start()


@pytest.mark.usefixtures("_java")
def test_a_format_that_takes_too_long_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formatters: list[subprocess.Popen[bytes]] = []
    spawn = apache.spawn

    def noted(command: Sequence[str], log: Path, *, detached: bool) -> subprocess.Popen[bytes]:
        formatters.append(spawn(command, log, detached=detached))
        return formatters[-1]

    monkeypatch.setattr(apache, "spawn", noted)
    monkeypatch.setattr(apache, "READY_S", 0.001)
    with pytest.raises(BrokerError, match="Node 0 was not formatted in 0 s"):
        ApacheKafka(tmp_path).start()
    assert [formatter.poll() for formatter in formatters] == [-signal.SIGKILL]


class Watched(EmbeddedBroker):
    """Detached, and remembers its process; once it runs, ``then`` happens."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port, detached=True)
        self.ran: list[Process] = []

    def start(self) -> None:
        super().start()
        self.ran = [Process.of(pid) for pid in self.pids]
        self.then()

    def then(self) -> None:
        """Nothing."""


class ToldToEnd(Watched):
    def then(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Unwritable(Watched):
    """Its home's state file cannot be written: a folder has its name."""

    def then(self) -> None:
        running.state_file(self.directory.parents[1], "embedded").mkdir()


@pytest.mark.parametrize(("kind", "raises"), [(ToldToEnd, SystemExit), (Unwritable, OSError)])
def test_a_start_that_is_interrupted_or_cannot_be_written_down_is_undone(
    kind: type[Watched], raises: type[BaseException], tmp_path: Path
) -> None:
    made: list[Watched] = []
    port = free_port()

    def make(folder: Path) -> Broker:
        made.append(kind(folder, port))
        return made[0]

    with pytest.raises(raises), undone_when_told_to_end():
        running.start(tmp_path, "embedded", [port], make)
    assert [process.alive() for process in made[0].ran] == [False]
    assert not running.state_file(tmp_path, "embedded").is_file()


@pytest.mark.usefixtures("_java")
def test_up_that_is_told_to_end_while_a_node_starts_leaves_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.cli", "broker", "apache", "up", "--port", str(free_port())]
    log = tmp_path / "broker" / "apache" / "node-0" / "server.log"
    with subprocess.Popen([*command, "--home", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as up:
        while not log.exists() and up.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(0.02)
        up.terminate()
        said, _ = up.communicate(timeout=DEADLINE_S)
    assert up.returncode == 128 + signal.SIGTERM, said
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(log).encode() in read(path)] == []
    assert running.load(tmp_path, "apache") is None


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


def test_two_starts_at_once_start_one_broker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.cli", "broker", "embedded", "up", "--json", "--port", str(free_port())]
    both = [subprocess.Popen([*command, "--home", str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        told = [json.loads(up.communicate(timeout=DEADLINE_S)[0]) for up in both]
    finally:
        running.stop(tmp_path, "embedded")
    assert [each["state"] for each in told] == ["up", "up"]
    assert told[0]["pids"] == told[1]["pids"]


def test_a_frozen_broker_is_silent_and_is_stopped_all_the_same(tmp_path: Path) -> None:
    home, port = tmp_path / "the shop's", free_port()
    up = running.start(home, "embedded", [port], lambda folder: EmbeddedBroker(folder, port, detached=True))
    try:
        os.kill(up.processes[0].pid, signal.SIGSTOP)
        status = CliRunner().invoke(app, ["broker", "embedded", "status", "--home", str(home)])
        again = CliRunner().invoke(app, ["broker", "embedded", "up", "--port", str(port), "--home", str(home)])
    finally:
        running.stop(home, "embedded")
    assert (status.exit_code, again.exit_code) == (1, 1)
    assert "is silent" in status.output
    assert "is silent already" in again.output
    assert f"salience broker embedded down --home '{tmp_path}/the shop'\"'\"'s'" in status.output
    assert not up.processes[0].alive()
