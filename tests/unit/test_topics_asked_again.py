"""Topics asked about over a connection that is cut."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams import topic_admin
from streams.topic_admin import TopicsError


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
