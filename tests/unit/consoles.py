"""What tests of the console are made of: partitions, groups, outcomes and dead letters, as it learns of them."""

from typing import Any

from streams.dead_letters import Letter
from streams.lag.arithmetic import PartitionLag, Status
from streams.lag.board import GroupLag, Sum
from streams.wire import Outcome
from tests.builders import START_MS


def partition(number: int, status: Status = Status.OK, topic: str = "clicks", **fields: Any) -> PartitionLag:
    """A partition ten records behind that keeps up, but for what ``fields`` say."""
    told: dict[str, Any] = {
        "committed": 90, "log_end": 100, "lag": 10, "time_lag_s": 0.5, "time_lag_at_least": False,
        "consumed_per_s": 5.0, "produced_per_s": 6.0, "catch_up_s": 1.0, "stuck_s": 0.0, "owner": "w@host",
    }  # fmt: skip
    return PartitionLag(topic=topic, partition=number, status=status, **(told | fields))


def group(*partitions: PartitionLag, state: str = "stable", produced_per_s: float = 100.0) -> GroupLag:
    """A group that reads these partitions."""
    total = Sum(
        status=Status.OK, partitions=len(partitions), lag=0, time_lag_s=0, time_lag_at_least=False,
        consumed_per_s=0, produced_per_s=produced_per_s, catch_up_s=0,
    )  # fmt: skip
    return GroupLag(
        group="salience", state=state, members=1, total=total, topics={"clicks": total}, partitions=partitions
    )


def outcome(predicted: float = 0.2, *, clicked: bool = False, **fields: Any) -> Outcome:
    """What came of an impression."""
    told: dict[str, Any] = {"event": "e", "ad_id": "a", "shown_ms": START_MS, "known_ms": START_MS, "arm": "engine"}
    return Outcome(**(told | {"model": "m", "attention": predicted} | fields), predicted=predicted, clicked=clicked)


def letter(error: str = "DecodeError", at_ms: int = START_MS, topic: str = "clicks") -> Letter:
    """A record of ``topic`` that could not be decoded."""
    origin = {
        "topic": topic,
        "stage": "decode",
        "error": error,
        "message": "m" * 1_000,
        "partition": "1",
        "offset": "7",
    }
    return Letter(0, 0, at_ms, b"key", b"secret", origin, (), 0, truncated=False)
