"""``salience lanes``: what lanes hold, and how they adopt recreated topics."""

from typing import TYPE_CHECKING

import msgspec
import typer
from rich.console import RenderableType

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Group, Json, Prefix, answer, asked, settings_of
from streams.cli.screen import Table, coloured, screen
from streams.topics import CHANGELOG
from streams.wire import LANE_KEY, UNREADABLE, LaneRow

if TYPE_CHECKING:
    from streams.decode import Record

app = typer.Typer(help="Show what the lanes hold, and adopt recreated topics.", no_args_is_help=True)


@app.command()
def show(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Show each lane's offsets, and what became of every record since its first; exit status 1 if one has no fate.

    Example: salience lanes show --bootstrap 127.0.0.1:9092
    """
    from streams.conservation import unaccounted
    from streams.reading import newest

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)

    async def read() -> dict[int, LaneRow]:
        last = await newest(settings.bootstrap, settings.topic_prefix + CHANGELOG, LANE_KEY)
        return {lane: _row(record) for lane, record in sorted(last.items())}

    lanes = asked(read())
    if as_json:
        answer({str(lane): row for lane, row in lanes.items()})
    else:
        screen(highlight=True).print(_table(lanes))
    if broken := {lane: lost for lane, row in lanes.items() if (lost := unaccounted(row.totals))}:
        typer.echo(f"Records without a fate, by lane: {broken}. This is a defect; please report it.", err=True)
        raise typer.Exit(1)


def _row(record: "Record") -> LaneRow:
    """A lane's row. An unreadable one ends the command: the other lanes must not look like all of them."""
    try:
        return msgspec.msgpack.decode(record.value or b"", type=LaneRow)
    except UNREADABLE as error:
        fail(
            f"the row of lane {record.partition}, at offset {record.offset} of {record.topic}, cannot be read: {error}."
            " A newer version may have written it, or other hands"
        )


def _table(lanes: dict[int, LaneRow]) -> RenderableType:
    """Each lane's offsets and counts: fates, which add up to what came in, and the rules that filtered events.

    Columns that are zero in all lanes are left out: all fifteen would not fit most terminals.
    """
    from streams.conservation import FATES, RULES, unaccounted

    if not lanes:
        return coloured("No lane has begun: a worker's first slice writes its row (salience worker).")
    fates = [name for name in FATES if any(row.totals.get(name) for row in lanes.values())]
    rules = [name for name in RULES if any(row.totals.get(name) for row in lanes.values())]
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("lane", "next impression", "next click", "in", *fates, "unaccounted", *rules, "flood score"):
        table.add_column(name.replace("_", " "), justify="right")
    for lane, row in lanes.items():
        counts = [row.totals.get(name, 0) for name in ("events_in", *fates)]
        filtered = [row.totals.get(name, 0) for name in rules]
        numbers = (*row.next_offsets, *counts, unaccounted(row.totals), *filtered)
        table.add_row(str(lane), *(f"{number:,}" for number in numbers), f"{row.flood_score:.3f}")
    return table


@app.command()
def adopt(bootstrap: Bootstrap = None, prefix: Prefix = None, group: Group = None, as_json: Json = False) -> None:
    """Keep the state; read recreated topics from their beginning, others on from the lane's offset. Stop workers first.

    An event of an old topic that is also in the new one is applied again, unless
    its id is among the last ones that the user's row remembers. In a topic that
    has lost its end, lanes go on at the first record newer than all they have
    read.

    Example: salience lanes adopt --bootstrap 127.0.0.1:9092
    """
    from streams.lanes.adopt import adopt as adopt_topics

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, group=group)
    adopted = asked(adopt_topics(settings))
    if as_json:
        answer({"adopted": adopted})
        return
    for lane in adopted:
        typer.echo(f"lane {lane.lane}: {lane.users:,} users kept, reads from {lane.next_offsets}")
    if not adopted:
        typer.echo("Every lane stands in the topics that are there; nothing to do.")
