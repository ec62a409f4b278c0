"""``salience replay``: run a recorded log through one worker, and check the outcome."""

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.progress import Progress

from streams.cli.hushed import hushed
from streams.cli.options import Bootstrap, Guarantee, Json, LogFolder, answer, settings_of
from streams.cli.screen import Table, bars, coloured, screen
from streams.clock import wall_ms

if TYPE_CHECKING:
    from streams.logs import Log
    from streams.replay_check import Plan, Report

app = typer.Typer(help="Replay a recorded log, and check the outcome.", no_args_is_help=True)

PrefixOption = Annotated[
    str | None, typer.Option("--prefix", help="Prefix of every topic name; else a new random one.")
]
PartitionsOption = Annotated[int, typer.Option("--partitions", min=1, max=64, help="Number of lanes.")]
SpeedOption = Annotated[
    str, typer.Option("--speed", help="full, or a multiple of real time such as 60 (only with --no-worker).")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many events.")]
NoWorker = Annotated[
    bool, typer.Option("--no-worker", help="Only fill the topics: no worker runs, nothing is checked.")
]


@app.command(epilog="Example: salience replay kuairand --data ./kuairand --limit 20000")
def kuairand(
    data: LogFolder,
    bootstrap: Bootstrap = None,
    prefix: PrefixOption = None,
    partitions: PartitionsOption = 4,
    speed: SpeedOption = "full",
    limit: LimitOption = None,
    guarantee: Guarantee = None,
    no_worker: NoWorker = False,
    as_json: Json = False,
) -> None:
    """Replay KuaiRand-Pure: fill the topics, run one worker to lag 0, and compare with the core without a broker.

    Exit status 1 if an event was lost, doubled or reordered, or a user has no
    placement. The topics stay.
    """
    from streams.logs import Log
    from streams.logs.kuairand import read
    from streams.replay_check import Plan

    multiple = _multiple(speed, worker=not no_worker)
    settings = settings_of(bootstrap=bootstrap, guarantee=guarantee)
    plan = Plan(settings.bootstrap, prefix or f"replay-{uuid.uuid4().hex[:8]}-", partitions, settings.guarantee)
    log = read(data)
    if limit is not None:
        log = Log(log.ads, log.events[:limit])
    with hushed("aiokafka"):  # failures are raised, and the command reports them
        _replay(log, plan, multiple, not no_worker, as_json)


def _multiple(speed: str, *, worker: bool) -> float | None:
    """The multiple of real time; None for full speed."""
    if speed == "full":
        return None
    try:
        multiple = float(speed)
    except ValueError:
        multiple = 0.0
    if not 0 < multiple < float("inf"):
        raise typer.BadParameter(f"{speed!r}; expected full, or a number above 0", param_hint="--speed")
    if worker:
        raise typer.BadParameter(
            f"{speed!r} with a worker: live, what has arrived decides the order, and the check knows only the log's. "
            "Say --no-worker, and run beside it: salience worker --prefix PREFIX",
            param_hint="--speed",
        )
    return multiple


def _replay(log: "Log", plan: "Plan", speed: float | None, worker: bool, as_json: bool) -> None:
    from streams import topics
    from streams.replay import ReplayError, fill, prepare

    people = screen(stderr=as_json)
    created = prepare(log, plan.bootstrap, plan.prefix, plan.partitions, wall_ms())
    if worker and plan.prefix + topics.AD_IMPRESSIONS not in created:
        raise ReplayError(
            f"topics under {plan.prefix!r} are there already, and the check needs those that this log alone fills; "
            "leave --prefix away, name another, or only fill with --no-worker"
        )
    with bars(people) as shown:
        advance = _bar(shown, "filling", len(log.ads) + len(log.events))
        once = plan.guarantee == "exactly_once"
        filling = fill(log, plan.bootstrap, plan.prefix, idempotent=once, speed=speed, progress=advance)
        filled = asyncio.run(filling)
        report = _check(log, plan, filled.events_per_s, shown) if worker else None
    if report is None:
        people.print(f"{filled.events:,} events under {plan.prefix} at {filled.events_per_s:,.0f}/s.")
        told = {"prefix": plan.prefix, "ads": filled.ads, "events": filled.events, "filled_per_s": filled.events_per_s}
        if as_json:
            answer(told)
        return
    _show(people, report)
    if as_json:
        from msgspec import to_builtins

        answer({"ok": report.ok, **to_builtins(report)})
    if not report.ok:
        raise typer.Exit(1)


def _check(log: "Log", plan: "Plan", filled_per_s: float, shown: Progress) -> "Report":
    from streams.lag.watch import Lag
    from streams.replay_check import check, run_worker

    task = shown.add_task("consuming", total=len(log.events))

    def consumed(lag: Lag) -> None:
        shown.update(task, completed=max(lag.consumed, 0))

    with tempfile.TemporaryDirectory(prefix="salience-replay-") as home:
        seconds = asyncio.run(run_worker(log, plan, Path(home), consumed))
    return asyncio.run(check(log, plan, filled_per_s, seconds, _bar(shown, "checking", None)))


def _bar(shown: Progress, name: str, total: int | None) -> Callable[[int], None]:
    """Add a bar; return the call that advances it."""
    task = shown.add_task(name, total=total)
    return lambda records: shown.advance(task, records)


def _show(people: Console, report: "Report") -> None:
    table = Table("", "", title="The log through one worker", title_justify="left", box=None, show_header=False)
    core, differs = "as the core without a broker", coloured("differs", "red")
    rows: dict[str, RenderableType] = {
        "events": f"{report.events:,}: {report.applied:,} applied, {report.duplicates:,} duplicates; "
        f"{report.repeated:,} are repeated in the log",
        "dead letters, rerouted": f"{report.dead_letters:,}, {report.rerouted:,}",
        "users": f"{report.users:,}, without a placement {report.users_without_placement:,}",
        "placements": f"{report.placements:,}, doubled {report.placements_doubled:,}, "
        f"stale {report.placements_stale:,}",
        "state": core if report.state_equal else differs,
        "click layer": coloured(f"{report.outcomes:,} outcomes, doubled {report.outcomes_doubled:,}; ").append_text(
            coloured(f"predictions {core}, apart by {report.prediction_difference:.1e} at most")
            if report.predictions_equal
            else differs
        ),
        "counts": core if report.totals_equal else coloured("differ", "red"),
        "speed": f"{report.events_per_s:,} events/s, {report.seconds:.1f} s from the first lane taken over to lag 0",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    people.print(table)
    for each in report.differences:
        people.print(f"user {each.user} {each.field or 'row'}: expected {each.expected}, got {each.got}")
