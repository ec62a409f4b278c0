"""Topics asked about over a connection that is cut, or over which nothing comes."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams import topic_admin
from streams.topic_admin import TopicsError

WAITING = """
import os, signal, sys, threading
from streams import nodes, topic_admin
def hear():
    if os.read(0, 1):
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=hear, daemon=True).start()
topic_admin.ANSWER_S = topic_admin.DONE_WITHIN_S = 600.0
topic_admin.wait_for_nodes(sys.argv[1], nodes.knowing(["clicks"]), "know the topics")
"""


class CutOff:
    """An admin client whose connection is cut in the midst of its first requests, so many; the later are answered."""

    def __init__(self, cuts: float) -> None:
        self.cuts, self.asked, self.heard = cuts, list[list[str]](), list[KafkaError]()

    def poll(self, _: float) -> None:
        pass

    def describe_topics(self, wanted: Any, **_: object) -> dict[str, Future[Any]]:
        self.asked.append(wanted.topic_names)
        futures = {name: Future[Any]() for name in wanted.topic_names}
        for future in futures.values():
            if len(self.asked) <= self.cuts:
                future.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT, "cut")))
            else:
                future.set_result(SimpleNamespace(topic_id="id", partitions=[SimpleNamespace(replicas=[1])]))
        return futures


def test_a_connection_that_is_cut_in_the_midst_of_a_request_has_it_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = CutOff(2)
    monkeypatch.setattr(topic_admin, "_admin", lambda _: admin)
    assert topic_admin.partition_counts("b:1", ["clicks", "ads"]) == {"clicks": 1, "ads": 1}
    assert admin.asked == [["clicks", "ads"]] * 3


def test_a_connection_that_is_cut_again_and_again_is_told_after_the_time_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic_admin, "ANSWER_S", 0.1)
    monkeypatch.setattr(topic_admin, "_admin", lambda _: CutOff(float("inf")))
    with pytest.raises(TopicsError, match=r"No Kafka broker answers at b:1 .*cut"):
        topic_admin.partition_counts("b:1", ["clicks"])


def test_who_waits_for_nodes_that_say_nothing_is_interrupted_though_no_signal_wakes_the_thread_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = [sys.executable, "-c", WAITING, f"127.0.0.1:{port}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            try:
                asked, _ = silent.accept()
                with asked:
                    asked.recv(1)
                    # Another thread hears the signal, as if it came just before this one fell asleep.
                    _, said = waiting.communicate("\n", timeout=60)
            finally:
                waiting.kill()
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert waiting.returncode == -signal.SIGINT
