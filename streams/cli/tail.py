"""``salience tail``: follow a topic, as text for people or as JSON lines."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import RenderableType

from streams.cli.failing import fail
from streams.cli.hushed import hushed
from streams.cli.options import Brokers, PlainPrefix
from streams.cli.screen import Table, coloured, moment, one_line, screen
from streams.topics import PLACEMENTS, TABLE
from streams.wire import UNREADABLE, Placement

if TYPE_CHECKING:
    from streams.followed import Followed

TopicArgument = Annotated[
    str, typer.Argument(help="placements, decisions, dead-letters, clicks, ad-impressions, ads, ...")
]
UserOption = Annotated[str | None, typer.Option("--user", help="Only records with this key.")]
BeginningOption = Annotated[
    bool, typer.Option("--from-beginning", help="Print existing records too; else only new ones.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="End after this many records; else at Ctrl-C.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print each record as a JSON object on one line.")]

POLL_MS = 500
ASK_AFTER_S = 10.0
"""So long without a record, a broker that answers no check of the topic is told as away."""
AWAY, BACK = "no answer from {}; goes on when it is back", "{} answers again"

TOLD_WITHIN = 32
"""An upper bound of the levels, of JSON and of calls, around a value when it is written."""
ORIGIN = "salience."
"""Header names of a dead letter's origin begin with this."""


def tail(
    topic: TopicArgument,
    user: UserOption = None,
    bootstrap: Brokers = "127.0.0.1:9092",
    prefix: PlainPrefix = "",
    from_beginning: BeginningOption = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the records of a topic until Ctrl-C, or until it has printed --limit of them.

    When it first waits for records, it says so on stderr; there, too, when the broker is away, and when it is back.
    Exit status 1 if the topic is deleted or made anew.

    Example: salience tail dead-letters --from-beginning --limit 20
    """
    names = [each.name for each in TABLE]
    if topic not in names:
        raise typer.BadParameter(f"{topic!r} is no topic of ours; expected one of {', '.join(names)}")
    out = screen(soft_wrap=True)

    def show(record: Any) -> None:
        if as_json:
            typer.echo(json.dumps(as_object(record)))
        else:
            out.print(for_people(topic, record))

    # An argument that is not UTF-8 gives its bytes: other producers' keys need not be text.
    key = None if user is None else user.encode(errors="surrogateescape")

    whose = "" if key is None else f" with key {key.decode(errors='backslashreplace')}"
    waits = f"waits for records of {prefix}{topic}{whose}; Ctrl-C ends it"
    tell = screen(stderr=True, soft_wrap=True).print
    with _failures(bootstrap), suppress(KeyboardInterrupt):
        asyncio.run(_follow(_records(bootstrap, prefix + topic, from_beginning, waits, tell), key, limit, show))


@contextmanager
def _failures(bootstrap: str) -> Iterator[None]:
    """A broker's failure becomes a message and exit status 1."""
    from aiokafka.errors import KafkaError

    try:
        with hushed("aiokafka"):  # failures are raised, and reported here
            yield
    except KafkaError as error:
        fail(
            f"{bootstrap} does not answer ({error!r})."
            " Start a broker: salience broker apache up (or embedded); or name yours: --bootstrap HOST:PORT."
        )


async def _follow(
    records: AsyncGenerator[Any, None], key: bytes | None, limit: int | None, show: Callable[[Any], None]
) -> None:
    """Show records, only those with ``key`` unless it is None, up to ``limit``."""
    shown = 0
    async with aclosing(records):
        async for record in records:
            if key is None or record.key == key:
                show(record)
                shown += 1
                if shown == limit:
                    return


async def _records(
    bootstrap: str, topic: str, from_beginning: bool, waits: str, tell: Callable[[str], None]
) -> AsyncGenerator[Any, None]:
    """Committed records of all partitions, without end.

    Tells ``waits`` once, the first time that there are none; then that the broker is away, and that it is back.
    Raises `ViewError` where the topic does not exist, and `streams.followed.MadeAnewError` once it is another: of that,
    aiokafka would leave out as many records as were read of the former one.
    """
    from streams.client import require_topic
    from streams.connection import aiokafka_options
    from streams.fetching import fetch
    from streams.leaving import at_work
    from streams.reading import groupless

    await require_topic(topic, aiokafka_options(bootstrap))
    start = "earliest" if from_beginning else "latest"
    async with (
        _followed(bootstrap, topic) as followed,
        at_work(groupless(bootstrap, topic, auto_offset_reset=start)) as consumer,
    ):
        told, away, heard_s = False, False, time.monotonic()
        while True:
            partitions = [*consumer.assignment()]  # anew: some may have been added
            followed.look(consumer, partitions)
            batches = await fetch(consumer, partitions, bootstrap, timeout_ms=POLL_MS)
            if not batches and not told and await _at_end(consumer, partitions):
                told = True
                tell(waits)
            heard_s = time.monotonic() if batches else heard_s
            # A check has a connection of its own: on the reader's, its answer would wait behind a long one.
            was_away, away = away, followed.is_unanswered and time.monotonic() - heard_s >= ASK_AFTER_S
            if away != was_away:
                tell((AWAY if away else BACK).format(bootstrap))
            for records in batches.values():
                for record in records:
                    yield record


@asynccontextmanager
async def _followed(bootstrap: str, topic: str) -> "AsyncIterator[Followed]":
    from streams.followed import Followed

    followed = Followed(bootstrap, [topic], subscribed=True)
    await followed.check()  # before anything is read
    try:
        yield followed
    finally:
        await followed.leave()


async def _at_end(consumer: Any, partitions: list[Any]) -> bool:
    """Whether all that is committed has been read, by what brokers have told: while they tell nothing, it has not."""
    ends = {tp: consumer.last_stable_offset(tp) for tp in partitions}
    return all([end is not None and await consumer.position(tp) >= end for tp, end in ends.items()])


def as_object(record: Any) -> dict[str, Any]:
    """A record for machines: its value parsed where it is JSON, else ``{"base64": ...}``.

    A record without a value has ``tombstone``: JSON's null is a value.
    """
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
        "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
        "headers": {name: (value or b"").decode(errors="backslashreplace") for name, value in record.headers},
        "value": _value(record.value),
        **({"tombstone": True} if record.value is None else {}),
    }


def _value(value: bytes | None) -> Any:

    if value is None:
        return None
    try:
        told = msgspec.json.decode(value)  # the standard library would read and write NaN and infinities as JSON
        msgspec.json.encode(_within(told))
    except UNREADABLE:
        return {"base64": base64.b64encode(value).decode()}
    return told


def _within(told: object) -> object:
    """``told``, nested at least as deep as it will be written: what can just be read may be too deep to write."""
    for _ in range(TOLD_WITHIN):
        told = [told]
    return told


def for_people(topic: str, record: Any) -> RenderableType:
    """A record for people: a placement as a table, any other as a line of its own."""
    if topic == PLACEMENTS and record.value is not None:
        with suppress(*UNREADABLE, OverflowError):  # integers of any length can be read, but not turned into floats
            return _placement(msgspec.json.decode(record.value, type=Placement))
    found = as_object(record)
    line = coloured(f"{_clock(record.timestamp)} {record.partition}:{record.offset} ", "dim")
    line.append_text(coloured(one_line(str(found["key"])), "bold"))
    origin = [f"{name.removeprefix(ORIGIN)}={text}" for name, text in found["headers"].items()]
    line.append_text(coloured(one_line("".join(f" {each}" for each in origin)), "yellow"))
    value = found["value"]
    shown = "(tombstone)" if record.value is None else json.dumps(value)
    if isinstance(value, dict) and value.keys() == {"base64"}:
        shown = f"({len(record.value)} bytes) {record.value[:60]!r}"
    return line.append_text(coloured(f" {shown}", "not bold"))


def _placement(placement: Placement) -> Table:
    title = one_line(f"{placement.user_id}  {_clock(placement.time_ms)}  {placement.arm}  {placement.placement_id}")
    table = Table("slot", "ad", "pCTR", "eCPM", "chosen by", title=title, title_justify="left", box=None)
    for slot in placement.slots:
        reasons = ", ".join(f"{item.ad_id} {item.weight:.0%}" for item in slot.attention)
        cells = (str(slot.slot), slot.ad_id, f"{slot.pctr:.2%}", f"{slot.ecpm_micros / 1e6:.2f}", reasons or "-")
        table.add_row(*map(one_line, cells))
    return table


def _clock(time_ms: int) -> str:
    return moment(time_ms, "%H:%M:%S.%f").removesuffix("000")
