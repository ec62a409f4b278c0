"""The door that the fault harness puts before a broker: open it relays, shut it holds back and refuses nothing."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from deploy.brokers.ready import HOST, free_port
from tests.integration.chaos.door import Door

WAIT_S = 10.0
HELD_S = 0.2


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


@pytest.fixture
def door() -> Iterator[Door]:
    """A door before an echo."""
    with socketserver.ThreadingTCPServer((HOST, 0), Echo) as echo:
        echo.daemon_threads = True
        serving = threading.Thread(target=echo.serve_forever)
        serving.start()
        door = Door(free_port(), echo.server_address[1])
        door.start()
        try:
            yield door
        finally:
            door.stop()
            echo.shutdown()
            serving.join()


def connect(door: Door) -> socket.socket:
    return socket.create_connection((HOST, door.port), timeout=WAIT_S)


def test_an_open_door_relays_both_ways(door: Door) -> None:
    with connect(door) as client:
        client.sendall(b"one")
        assert client.recv(100) == b"one"


def test_a_shut_door_holds_back_what_is_sent_and_lets_it_through_once_open(door: Door) -> None:
    with connect(door) as client:
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        door.shut()
        client.sendall(b"two")
        client.settimeout(HELD_S)
        with pytest.raises(TimeoutError):
            client.recv(100)
        with connect(door) as another:  # a connection is taken, as by a network that loses what comes after
            another.settimeout(HELD_S)
            another.sendall(b"three")
            with pytest.raises(TimeoutError):
                another.recv(100)
            door.open()
            client.settimeout(WAIT_S)
            another.settimeout(WAIT_S)
            assert client.recv(100) == b"two"
            assert another.recv(100) == b"three"
