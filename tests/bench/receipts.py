"""How soon a placement's receipt is found by its id, beside looking through the topic.

A worker drains a backlog and leaves real receipts. Then some of each lane, from its first to its last, are sought.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from streams import topics
from streams.placement_ids import Origin
from streams.reading import read_topic
from streams.receipt_search import find_receipt, receipt_among
from tests.bench.bed import LANES, Bed, BenchError, bed
from tests.bench.load import Load
from tests.bench.report import Report, Say, ratio, repeated, rounded

SOUGHT = 5
"""Receipts of each lane."""
UNKNOWN = "0-1-1-0000000000000000"
"""Nobody's: all of its lane is read before it is known to be missing."""


class _Named(msgspec.Struct):
    placement_id: str


def run(events: int, runs: int, say: Say) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    load = Load(events=events)
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated("receipts", runs, lambda: measure(there, load), say, events=events, lanes=LANES)


def measure(there: Bed, load: Load) -> Report:
    """Seconds to find one, in the middle and at most; to know that one is missing; and to look through the topic."""
    prefix, _ = there.filled(load)
    there.say("placing, with receipts")
    there.worker(prefix, load, guarantee="exactly_once")
    names, value_bytes = asyncio.run(_all(there.bootstrap, prefix))
    there.say("looking for some")
    found_s = [asyncio.run(_found_s(there.bootstrap, prefix, name)) for name in sample(names)]
    return {
        "receipts": len(names),
        "bytes_per_receipt": rounded(value_bytes / len(names)),
        "found_s": {"median": rounded(median(found_s)), "longest": rounded(max(found_s))},
        "missing_s": rounded(asyncio.run(_missing_s(there.bootstrap, prefix))),
        "topic_s": rounded(topic_s := asyncio.run(_topic_s(there.bootstrap, prefix))),
        "topic_vs_found": ratio(topic_s, median(found_s)),
    }


def sample(names: Sequence[str]) -> list[str]:
    """`SOUGHT` of each lane's ``names``, evenly, its first and last among them."""
    lanes: dict[int, list[str]] = {}
    for name in names:
        if (origin := Origin.of(name)) is not None:
            lanes.setdefault(origin.lane, []).append(name)
    return [of[at * (len(of) - 1) // (SOUGHT - 1)] for of in lanes.values() for at in range(SOUGHT)]


async def _all(bootstrap: str, prefix: str) -> tuple[list[str], int]:
    """The ids of all receipts, each lane's in order, and their bytes."""
    names, value_bytes = list[str](), 0
    async for records in read_topic(bootstrap, prefix + topics.DECISIONS):
        for record in records:
            names.append(msgspec.json.decode(record.value or b"", type=_Named).placement_id)
            value_bytes += len(record.value or b"")
    return names, value_bytes


async def _found_s(bootstrap: str, prefix: str, name: str) -> float:
    began_s = time.perf_counter()
    receipt = await find_receipt(bootstrap, prefix, name)
    if receipt is None or receipt.placement_id != name:
        raise BenchError(f"the receipt of {name} is on the topic, and was not found")
    return time.perf_counter() - began_s


async def _missing_s(bootstrap: str, prefix: str) -> float:
    began_s = time.perf_counter()
    if await find_receipt(bootstrap, prefix, UNKNOWN) is not None:
        raise BenchError(f"{UNKNOWN} is nobody's, and a receipt was found")
    return time.perf_counter() - began_s


async def _topic_s(bootstrap: str, prefix: str) -> float:
    """To look through all receipts for one."""
    began_s = time.perf_counter()
    async for records in read_topic(bootstrap, prefix + topics.DECISIONS):
        receipt_among(records, UNKNOWN)
    return time.perf_counter() - began_s
