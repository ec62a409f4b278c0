"""Apache Kafka 4 in KRaft mode on loopback, one node or three, each of them broker and controller.

Ready in 2.5 s with one node (2 cores, Java 17): 0.6 s to format, 1.7 s to start. The JVM uses only its
first compiler tier (``-XX:TieredStopAtLevel=1``): it then starts in three quarters of the time, and takes
as many messages/s for two thirds of the processor time. The first format leaves the classes that it loaded
beside the jars; with them the next one takes a second of processor time less. A node does without: it would
start no faster, and a torn archive would end it. Data and logs stay in the directory: a later start finds
the topics again, on other ports if need be.
"""

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from deploy.brokers import Broker, BrokerError
from deploy.brokers.jars import class_archive, default_cache, fetch
from deploy.brokers.java import java_command
from deploy.brokers.kraft import Ports, node_properties, stop_grace_s, write_properties
from deploy.brokers.process import Process, end, kill, log_tail, spawn
from deploy.brokers.ready import HOST, free_port, is_free, start_on_free_ports, wait_until_answers

READY_S = 120.0
"""2.5 s for one node, 6 s for three on 2 cores; a busy machine may need ten times that."""

ROOM_MIN_BYTES = 500_000_000
"""Least free space where the data is: a benchmark writes gigabytes (18 KB a placement). A node that cannot write gives
up its partitions, and clients hear only that they have no leader."""

NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})


def say_on_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


class ApacheKafka(Broker):
    """A cluster; its nodes are numbered from 0, which is also their ``node.id``."""

    transactions = True

    def __init__(
        self,
        directory: Path,
        nodes: Literal[1, 3] = 1,
        *,
        port: int | None = None,
        heap_mb: int = 512,
        properties: Mapping[str, str] = NO_PROPERTIES,
        properties_of: Callable[[int, Ports], Mapping[str, str]] = lambda _node, _ports: NO_PROPERTIES,
        client: Mapping[str, str] = NO_PROPERTIES,
        format_options: Sequence[str] = (),
        cache: Path | None = None,
        detached: bool = False,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        """``port``: of node 0, the next ones for the others; None: free ones. ``properties`` override ours;
        ``properties_of(node, ports)`` overrides both for one node. ``client``: librdkafka's options for asking
        whether it answers; ``format_options``: further options of ``StorageTool format``.

        ``cache``: folder of the jars (``default_cache()``). ``detached``: it outlives this process.
        ``say`` is called with one line if the jars must be fetched first.
        """
        if nodes not in (1, 3):
            raise BrokerError(f"{nodes} nodes make no useful quorum: 1, or 3 to lose one.")
        # Absolute: a detached node must not depend on where it was started from.
        self.directory = directory.absolute()
        self._nodes = nodes
        self._port = port
        self._heap_mb = heap_mb
        self._properties = dict(properties)
        self._properties_of = properties_of
        self._client = dict(client)
        self._format_options = list(format_options)
        self._cache = cache
        self._detached = detached
        self._say = say
        self._ports: list[Ports] = []
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._jars = self._archive = Path()
        self._java: list[str] = []

    @property
    def bootstrap(self) -> str:
        if not self._ports:
            raise BrokerError("Apache Kafka has no address before start().")
        return ",".join(f"{HOST}:{ports.broker}" for ports in self._ports)

    @property
    def node_pids(self) -> dict[int, int]:
        """Process of each node that was started and has not been stopped."""
        return {node: child.pid for node, child in sorted(self._children.items())}

    @property
    def pids(self) -> list[int]:
        return list(self.node_pids.values())

    def start(self) -> None:
        """Fetch missing jars, format new nodes, start every node and wait until all answer.

        Raises ``BrokerUnavailableError`` without Java, Maven or the jars; ``BrokerError`` where a node fails or
        there is no room.
        """
        self._refuse_other_size()
        self._java = [java_command(), f"-Xmx{self._heap_mb}m", f"-Xms{self._heap_mb}m"]
        self._java += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        self._jars = fetch(self._cache or default_cache(), self._say)
        self._archive = class_archive(self._jars, self._java[0])
        # Kafka spells names of its own by the locale's letters: a Turkish one has another i.
        self._java += ["-Duser.language=en", "-Djava.awt.headless=true", "-cp", f"{self._jars}/*"]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.check()
        start_on_free_ports(self._start, lambda: [port for ports in self._ports for port in ports])

    def check(self) -> None:
        """Raise ``BrokerError`` where a node has ended by itself, or hardly any room is left for its data."""
        free = shutil.disk_usage(self.directory).free
        if free < ROOM_MIN_BYTES:
            raise BrokerError(
                f"{free / 1e6:,.0f} MB are free where {self.directory} is; expected {ROOM_MIN_BYTES / 1e6:,.0f} at"
                " least, or Apache Kafka's partitions lose their leaders. Make room, or take a folder on another file"
                " system: --home, or TMPDIR where it is a temporary one."
            )
        for node, child in self._children.items():
            if child.poll() is not None:
                said = f"{self._console(node)}\n{log_tail(self.node_log(node))}"
                raise BrokerError(f"Node {node} ended with code {child.returncode}:\n{said}")

    def stop(self) -> None:
        """Stop every node; one that does not stop in time is killed, which Kafka's log survives."""
        self._end(list(self._children))

    def kill_node(self, node: int) -> None:
        """End a node as a power cut would."""
        kill(self._child(node))
        del self._children[node]

    def stop_node(self, node: int) -> None:
        """Stop a node in order, so that it hands over its partitions first."""
        self._child(node)
        self._end([node])

    def start_node(self, node: int) -> None:
        """Start a node that was killed or stopped, and wait until it is back in the cluster."""
        self.start_nodes([node])

    def start_nodes(self, nodes: Sequence[int]) -> None:
        """Start nodes that were killed or stopped, all at once: a lost quorum needs that."""
        for node in nodes:
            if node in self._children:
                raise BrokerError(f"Node {node} runs already, as process {self._children[node].pid}.")
            self._spawn(node)
        self._wait()

    def bootstrap_of(self, nodes: Mapping[int, object]) -> str:
        """Addresses of these nodes only."""
        return ",".join(f"{HOST}:{self._ports[node].broker}" for node in sorted(nodes))

    def node_log(self, node: int) -> Path:
        return self._folder(node) / "server.log"

    def _start(self) -> None:
        self._ports = self._plan_ports()
        try:
            self._format()
            for node in range(self._nodes):
                self._spawn(node)
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        """Wait until the cluster lists every running node."""
        bootstrap, nodes = self.bootstrap_of(self._children), len(self._children)
        wait_until_answers(bootstrap, self._cluster_id(), nodes, READY_S, self.check, self._client)

    def _folder(self, node: int) -> Path:
        return self.directory / f"node-{node}"

    def _child(self, node: int) -> subprocess.Popen[bytes]:
        if node not in self._children:
            raise BrokerError(f"Node {node} does not run; these do: {sorted(self._children)}.")
        return self._children[node]

    def _refuse_other_size(self) -> None:
        held = len(list(self.directory.glob("node-*/data/meta.properties")))
        if held not in (0, self._nodes):
            advice = f"Start it with {held} nodes, or drop" if held in (1, 3) else "Drop"
            raise BrokerError(
                f"{self.directory} holds the data of {held} nodes, not {self._nodes}."
                f" {advice} its data: rm -r {shlex.quote(str(self.directory))}"
            )

    def _plan_ports(self) -> list[Ports]:
        taken: list[int] = []
        for node in range(self._nodes):
            broker = free_port(taken) if self._port is None else self._port + node
            if not is_free(broker):
                raise BrokerError(f"Port {broker} on {HOST} is taken; choose another.")
            taken += [broker, free_port([*taken, broker])]
        return [Ports(*pair) for pair in zip(taken[::2], taken[1::2], strict=True)]

    def _format(self) -> None:
        """Write every node's configuration, and format the new ones, all at once."""
        cluster = self._cluster_id()
        left = self._archive.with_suffix(f".{uuid.uuid4().hex}")
        classes = self._shared()
        if not classes and os.access(self._jars, os.W_OK):
            classes = [f"-XX:ArchiveClassesAtExit={left}", "-Xlog:cds*=off"]
        formatting: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for node in range(self._nodes):
                folder = self._folder(node)
                folder.mkdir(parents=True, exist_ok=True)
                ours = node_properties(node, self._ports, folder / "data")
                of_node = dict(self._properties_of(node, self._ports[node]))
                write_properties(folder / "server.properties", ours | self._properties | of_node)
                if not (folder / "data" / "meta.properties").exists():
                    command = [*self._java, *classes, "kafka.tools.StorageTool", "format", "--cluster-id", cluster]
                    command += ["--config", str(folder / "server.properties"), *self._format_options]
                    formatting[node] = spawn(command, folder / "console.log", detached=False)
                    classes = self._shared()  # one of them leaves an archive
            for node, child in formatting.items():
                self._hear_formatted(node, child)
            if left.exists():
                with left.open("rb") as written:
                    os.fsync(written.fileno())  # a torn one would end every format
                left.replace(self._archive)
        except BaseException:
            # If some are formatted and others not, a later start would take them for a cluster of another size.
            for node, child in formatting.items():
                kill(child)
                shutil.rmtree(self._folder(node) / "data", ignore_errors=True)
            raise
        finally:
            for child in formatting.values():
                kill(child)
            left.unlink(missing_ok=True)

    def _shared(self) -> list[str]:
        """Java's options for classes that an earlier format has left, if one has."""
        return [f"-XX:SharedArchiveFile={self._archive}"] if self._archive.exists() else []

    def _hear_formatted(self, node: int, formatter: subprocess.Popen[bytes]) -> None:
        try:
            status = formatter.wait(READY_S)
        except subprocess.TimeoutExpired:
            status = None
        if status != 0:
            failed = f"was not formatted in {READY_S:.0f} s" if status is None else "could not be formatted"
            raise BrokerError(f"Node {node} {failed}:\n{self._console(node)}")

    def _cluster_id(self) -> str:
        """The cluster's id, drawn once per directory. It begins with ``x``: a ``-`` would be read as an option."""
        path = self.directory / "cluster-id"
        if not path.exists():
            drawn = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            path.write_text(drawn.replace("-", "x", 1) if drawn.startswith("-") else drawn)
        return path.read_text()

    def _spawn(self, node: int) -> None:
        folder = self._folder(node)
        log4j = Path(__file__).with_name("log4j2.properties")
        options = [f"-Dsalience.log={self.node_log(node)}", f"-Dlog4j2.configurationFile={log4j}"]
        command = [*self._java, *options, "kafka.Kafka", str(folder / "server.properties")]
        self._children[node] = spawn(command, folder / "console.log", detached=self._detached)

    def _end(self, nodes: list[int]) -> None:
        # Once a child has been reaped, its number may belong to another process.
        left = [child.pid for node in nodes if (child := self._children[node]).poll() is None]
        end([Process.of(pid) for pid in left], stop_grace_s(len(nodes)))
        for node in nodes:
            self._children.pop(node).wait()

    def _console(self, node: int) -> str:
        """The last lines of a node's console, and what helps if classes are missing or Java itself has failed."""
        said = log_tail(self._folder(node) / "console.log")
        if re.search("ClassNotFoundException|NoClassDefFoundError|hs_err_pid", said):
            said += f"\nThe jars are not whole; have them fetched anew: rm -r {shlex.quote(str(self._jars))}"
        return said
