"""What an administrator's client says where the brokers do not let it in: at once, and of the password."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams import topic_admin
from streams.topic_admin import ShutOutError, TopicsError

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "invalid credentials")
AWAY = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
LATE = KafkaException(KafkaError(KafkaError._TIMED_OUT, "while waiting for controller"))


class Admin:
    """A client that hears ``errors`` one by one; after the last, its request times out."""

    def __init__(self, *errors: KafkaError) -> None:
        self.heard: list[KafkaError] = []
        self._errors, self._asked = [*errors], Future[Any]()

    def describe_cluster(self, **_: object) -> Future[Any]:
        return self._asked

    def poll(self, _: float) -> None:
        if self._errors:
            self.heard.append(self._errors.pop(0))
        else:
            self._asked.set_exception(LATE)

    @property
    def waited(self) -> bool:
        """Whether the request has timed out."""
        return self._asked.done()


def asked(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> TopicsError:
    monkeypatch.setattr(topic_admin, "_admin", lambda _: admin)
    with pytest.raises(TopicsError) as caught:
        topic_admin.brokers("b:1")
    return caught.value


def test_where_every_broker_refuses_the_password_it_is_named_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(REFUSED, AWAY)
    error = asked(admin, monkeypatch)
    assert isinstance(error, ShutOutError)
    assert str(error).startswith("b:1 does not let this process in (invalid credentials); is its password another one")
    assert not admin.waited


def test_one_broker_that_refuses_is_told_only_where_no_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(REFUSED)
    assert isinstance(asked(admin, monkeypatch), ShutOutError)
    assert admin.waited


def test_brokers_that_are_away_are_not_taken_for_those_that_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    error = asked(Admin(AWAY), monkeypatch)
    assert not isinstance(error, ShutOutError)
    assert str(error).startswith("No Kafka broker answers at b:1")
