"""``salience lanes``: what lanes hold, and what to do when their topics were made anew."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import Bootstrap, Json, Prefix, settings_of

app = typer.Typer(help="What the lanes hold, and recreated topics.", no_args_is_help=True)

Group = Annotated[str | None, typer.Option(help="Consumer group of the workers (SALIENCE_GROUP).")]


@app.command()
def show(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Where each lane stands, and what became of every record since its first.

    Example: salience lanes show --bootstrap 127.0.0.1:9092
    """
    import msgspec

    from streams.reading import read_topic
    from streams.wire import LANE_KEY, LaneRow

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)

    async def read() -> dict[int, LaneRow]:
        rows = {}
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + "state-changelog"):
            for record in records:
                if record.key == LANE_KEY and record.value is not None:
                    rows[record.partition] = msgspec.msgpack.decode(record.value, type=LaneRow)
        return dict(sorted(rows.items()))

    lanes = asyncio.run(read())
    if as_json:
        sys.stdout.write(msgspec.json.encode({str(lane): row for lane, row in lanes.items()}).decode() + "\n")
        return
    names = ("events_in", "applied", "duplicate", "replayed", "dead", "rerouted", "placements")
    table = Table("lane", "next impression", "next click", *names)
    for lane, row in lanes.items():
        counts = (f"{row.totals.get(name, 0):,}" for name in names)
        table.add_row(str(lane), f"{row.next_offsets[0]:,}", f"{row.next_offsets[1]:,}", *counts)
    Console().print(table)


@app.command()
def adopt(bootstrap: Bootstrap = None, prefix: Prefix = None, group: Group = None, as_json: Json = False) -> None:
    """Keep the state and read recreated topics from their beginning. Stop the workers first.

    Events that are in the new topics and were in the old ones are applied again, unless their ids are among the
    last that the user's row remembers.

    Example: salience lanes adopt --bootstrap 127.0.0.1:9092
    """
    import msgspec

    from streams.adopt import adopt as adopt_topics

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, group=group)
    adopted = asyncio.run(adopt_topics(settings))
    if as_json:
        sys.stdout.write(msgspec.json.encode({"adopted": adopted}).decode() + "\n")
        return
    for lane in adopted:
        typer.echo(f"lane {lane.lane}: {lane.users:,} users kept, reads from {lane.next_offsets}")
    if not adopted:
        typer.echo("Every lane stands in the topics that are there; nothing to do.")
