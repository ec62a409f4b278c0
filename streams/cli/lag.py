"""``salience lag``: how far consumer groups are behind, seen from outside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.text import Text

from streams.cli.ending import until_told
from streams.cli.options import Bootstrap, Host, Json, LogJson, PollEvery, Port, StuckAfter, answer, named, settings_of
from streams.cli.screen import Table, coloured, screen

if TYPE_CHECKING:
    from streams.lag.arithmetic import PartitionLag
    from streams.lag.board import GroupLag, Sum
    from streams.lag.monitor import LagMonitor, News

app = typer.Typer()

By = Literal["partition", "topic", "group"]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", callback=named, help="Only this group; repeat it for several; else all groups."),
]
Prefix = Annotated[str | None, typer.Option(help="Only topics with this prefix (SALIENCE_TOPIC_PREFIX).")]
Window = Annotated[
    float, typer.Option("--window", min=2, max=3_600, help="Seconds over which rates and trends are measured.")
]

COLOURS = {"OK": "green", "UNKNOWN": "dim", "WARN": "yellow", "STALL": "red", "STOP": "red", "REWIND": "red"}
FAILING = ("STALL", "STOP", "REWIND")
FALLING = ("WARN", *FAILING)
"""Statuses in which no estimate means never; in others the present rates say nothing of catching up."""
RATES_FIT = 110
"""Least terminal columns for the rates of partitions; narrower ones need the room for owners."""


@app.callback(invoke_without_command=True, epilog="Example: salience lag --group salience --watch")
def lag(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    group: Groups = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep watching until Ctrl-C.")] = False,
    seconds: Annotated[
        float,
        typer.Option(
            min=0, max=3_600, help="Least seconds to measure before the answer; 0: look once. Not with --watch."
        ),
    ] = 2.0,
    by: Annotated[By, typer.Option(help="Show a row per partition, topic or group.")] = "partition",
    every: PollEvery = 1.0,
    window: Window = 30.0,
    stuck_after: StuckAfter = 10.0,
    as_json: Json = False,
) -> None:
    """Show the lag of consumer groups, the workers' or any other's. It joins no group and needs only Describe.

    Statuses follow Burrow's rules:
    OK; WARN: consumes, but falls behind; STALL: a live member makes no progress;
    STOP: nobody makes progress; REWIND: offsets went back;
    UNKNOWN: no offset committed.

    Rates and statuses need time: --seconds, --watch. A partition that is behind
    and does not move is watched for --stuck-after before the answer. A time lag
    marked > is at least that: the record is older than the watch. Terminals of
    less than 110 columns show rates only by topic and by group. With --watch,
    --json prints an object after every poll.

    Exit status 1 if a partition is STALL, STOP or REWIND, or the lag is not
    known, for example because the group does not exist.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    monitor = _monitor(bootstrap, prefix, group, every, window, stuck_after)
    people = screen(stderr=as_json)
    if watch:
        with suppress(KeyboardInterrupt):  # which is how a watch is meant to end
            asyncio.run(_watch(monitor, people, by, group or [], as_json))
        return
    news = asyncio.run(_after(monitor, seconds, stuck_after))
    if as_json:
        answer(_object(news))
    if news.time_ms and (news.report.groups or not group):
        people.print(_table(news, by, people.width))
    if news.lacking:
        screen(stderr=True, soft_wrap=True).print(f"Note: {news.lacking}")
    if news.stale or news.error:
        why = news.error or f"the lag is not told for {news.age_s:.0f} s"
        screen(stderr=True, soft_wrap=True).print(f"Error: {why}")
        raise typer.Exit(1)
    if absent := _absent(news, group or []):
        screen(stderr=True, soft_wrap=True).print(f"Error: {absent}")
        raise typer.Exit(1)
    if news.report.worst in FAILING:
        raise typer.Exit(1)


@app.command(epilog="Example: salience lag serve --port 9308 --group salience --group ad-server")
def serve(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    group: Groups = None,
    host: Host = None,
    port: Port = 9308,
    every: PollEvery = 1.0,
    window: Window = 30.0,
    stuck_after: StuckAfter = 10.0,
    log_json: LogJson = False,
) -> None:
    """Serve the lag for Prometheus (/metrics), pages (/lag, /events) and probes (/healthz), until stopped."""
    import structlog

    from streams.guard import Bearer
    from streams.lag import serve as server
    from streams.log_lines import configure_logging

    settings = settings_of(web_host=host)
    configure_logging(log_json=log_json)
    log = structlog.get_logger()

    def failing(why: str) -> None:
        log.warning("the lag is not told", error=why)

    monitor = _monitor(bootstrap, prefix, group, every, window, stuck_after, failing)

    def ready(url: str) -> None:
        log.info("serving", metrics=f"{url}/metrics")

    asyncio.run(until_told(server.serve(monitor, (settings.web_host, port), Bearer(settings), ready)))


def _refuse_options(context: typer.Context) -> None:
    """Refuse options before a subcommand: they would go to this command, and the subcommand would use its defaults."""
    name = context.invoked_subcommand
    given = [
        each.opts[0]
        for each in context.command.params
        if each.name and getattr(context.get_parameter_source(each.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(f"options of {name} come after it: {context.command_path} {name} {given[0]} ...")


def _monitor(
    bootstrap: str | None,
    prefix: str | None,
    groups: list[str] | None,
    every: float,
    window: float,
    stuck: float,
    failing: Callable[[str], None] = lambda _why: None,
) -> "LagMonitor":
    from streams.lag.arithmetic import Rules
    from streams.lag.monitor import LagMonitor
    from streams.lag.poller import Poller

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    rules = Rules(window_ms=round(1000 * window), stuck_ms=round(1000 * stuck))
    return LagMonitor(Poller(settings.bootstrap, groups or None, settings.topic_prefix), rules, every, failing=failing)


async def _after(monitor: "LagMonitor", seconds: float, stuck_after: float) -> "News":
    """Poll for ``seconds``, at least once; return what is known then.

    Where a partition is behind and has not moved meanwhile, poll on until it does, or has been stuck for
    ``stuck_after``: a shorter look takes one that stands still for one that is read.
    """
    loop = asyncio.get_running_loop()
    end, first_ms = loop.time() + seconds, 0
    while True:
        await monitor.poll()
        news = monitor.latest
        first_ms = first_ms or news.time_ms
        left_s = end - loop.time()
        if left_s <= 0 and not (seconds and _undecided(news, (news.time_ms - first_ms) / 1000, stuck_after)):
            return news
        await asyncio.sleep(min(monitor.every_s, left_s) if left_s > 0 else monitor.every_s)


def _undecided(news: "News", looked_s: float, stuck_after: float) -> bool:
    """Whether a partition that is behind has not moved in the last half of the look, and is not told to be stuck.

    So it is of any that is behind at the first poll.
    """
    stuck = [one.stuck_s for group in news.report.groups for one in group.partitions if one.lag]
    return not news.error and any(looked_s / 2 <= stuck_s < stuck_after for stuck_s in stuck)


async def _watch(monitor: "LagMonitor", people: Console, by: By, asked: list[str], as_json: bool) -> None:
    from rich.console import Group

    async def told() -> AsyncIterator["News"]:
        async with monitor:
            async for news in monitor.news():
                if news.polls:
                    yield news

    if as_json:
        async for news in told():
            answer(_object(news))
        return
    with _frames(people) as show:
        async for news in told():
            notes = [coloured(each, "yellow") for each in (news.lacking, _absent(news, asked)) if each]
            known = news.report.groups or news.stale or not notes
            shown = [_table(news, by, people.width)] if known else []
            show(Group(*shown, *notes))


@contextmanager
def _frames(people: Console) -> Iterator[Callable[[RenderableType], None]]:
    """Where a watch's frames are shown: on a terminal each in place of the one before, elsewhere one after another."""
    from rich.live import Live

    if not people.is_terminal:
        yield people.print
        return
    with Live(console=people, auto_refresh=False, screen=True) as live:
        yield lambda frame: live.update(frame, refresh=True)


def _absent(news: "News", asked: list[str]) -> str:
    """Which groups asked for are missing, and why; "" if none is, or nothing is known."""
    absent = sorted({*asked} - {one.group for one in news.report.groups})
    if news.stale or not absent:
        return ""
    why = "is not told" if news.lacking else "has committed no offset that is there, or does not exist"
    return f"{', '.join(map(repr, absent))} {why}; all groups: salience lag"


def _object(news: "News") -> dict[str, Any]:

    return {"worst": news.report.worst, **msgspec.to_builtins(news)}


def _table(news: "News", by: By, width: int) -> RenderableType:
    """One row, on one line of ``width`` characters, per group, topic or partition."""
    groups = news.report.groups
    if not groups and not news.stale:
        return coloured("No consumer group has committed an offset yet; workers do with their first slice.")
    named = by == "group" or len(groups) != 1
    rates = by != "partition" or width >= RATES_FIT
    title = coloured("Lag, " if named else f"Lag of {groups[0].group}, ", "table.title").append_text(_freshness(news))
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("group", by) if named and by != "group" else (by,):
        table.add_column(name)
    table.add_column("status")
    for name in ("behind", "time lag", *(("consumed/s", "produced/s") if rates else ()), "catch up"):
        table.add_column(name, justify="right")
    table.add_column("owner" if by == "partition" else "members")
    for group in groups:
        of = (group.group,) if named and by != "group" else ()
        for name, lag, who in _rows(group, by):
            table.add_row(*of, name, *_cells(lag, rates), who)
    return table


def _freshness(news: "News") -> Text:
    if news.stale:
        return coloured(f"not told for {news.age_s:.0f} s: {news.error}", "bold red")
    return coloured(f"{news.age_s:.1f} s ago")


def _rows(group: "GroupLag", by: By) -> "Iterator[tuple[str, PartitionLag | Sum, RenderableType]]":
    """Name, lag, and members or owner."""
    members = "-" if group.members is None else str(group.members)
    if by == "group":
        yield group.group, group.total, members
    elif by == "topic":
        for topic, total in group.topics.items():
            yield topic, total, members
    else:
        for each in group.partitions:
            nobody = each.owner is None and group.members
            owner = coloured("nobody", "red") if nobody else coloured(each.owner or "-")
            yield f"{each.topic}[{each.partition}]", each, owner


def _cells(lag: "PartitionLag | Sum", rates: bool) -> tuple[RenderableType, ...]:
    sign = ">" if lag.time_lag_at_least else ""
    return (
        coloured(lag.status, COLOURS[lag.status]),
        "-" if lag.lag is None else f"{lag.lag:,}",
        "-" if lag.time_lag_s is None else sign + _span(lag.time_lag_s),
        *((f"{lag.consumed_per_s:,.1f}", f"{lag.produced_per_s:,.1f}") if rates else ()),
        _span(lag.catch_up_s) if lag.catch_up_s is not None else "never" if lag.status in FALLING else "-",
    )


def _span(seconds: float) -> str:
    """Seconds for people: 0.4 s, 3:05, 2 h 05."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02}"
