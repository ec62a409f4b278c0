"""What a test wants of the machine and this one lacks: the test is skipped, or fails where it must not be skipped."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NoReturn, TypeVar

import pytest

from deploy.brokers import BrokerUnavailableError

Cluster = TypeVar("Cluster")

VARIABLE = "SALIENCE_TESTS_NEED"
"""Names, with spaces between: of ``kafka``, ``promtool``, ``chromium`` those without which no test may pass as skipped.

``.ci/run`` sets it: a machine that has what it takes must not pass for want of a download.
"""


def needed(name: str) -> bool:
    """Whether this run counts only with it."""
    return name in os.environ.get(VARIABLE, "").split()


def lacking(name: str, why: object) -> NoReturn:
    """Skip the test that runs, or fail it where it is needed."""
    if needed(name):
        pytest.fail(f"{why} ({VARIABLE} names {name})", pytrace=False)
    pytest.skip(str(why))


@contextmanager
def apache_kafka(cluster: AbstractContextManager[Cluster]) -> Iterator[Cluster]:
    """``cluster``, which runs in the block; where Apache Kafka cannot be had the test is skipped, or fails."""
    with ExitStack() as running:
        try:
            started = running.enter_context(cluster)
        except BrokerUnavailableError as error:
            lacking("kafka", str(error).splitlines()[0])
        yield started
