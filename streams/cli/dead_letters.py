"""``salience dead-letters``: records that could not be read, why, and how to send them back."""

import base64
import json
from collections import Counter
from collections.abc import Collection
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.ending import undone_when_told_to_end
from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, asked, settings_of
from streams.cli.screen import Table, moment, plain, screen

if TYPE_CHECKING:
    from streams.dead_letters import Filter, Letter

app = typer.Typer(help="List, show and send back records that could not be read.", no_args_is_help=True)

Stage = Annotated[str | None, typer.Option(help="Only those of this stage: decode, state, reroute, catalogue, review.")]
Error = Annotated[str | None, typer.Option(help="Only those with this error class, such as ValidationError.")]
Origin = Annotated[
    str | None, typer.Option("--topic", help="Only those from this topic, without its prefix, such as clicks.")
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Show only the last so many letters.")]
EXCERPT_CHARS = 200
"""What list shows of a letter's message: the value, what was expected and what helps, seldom longer."""


@app.command("list", epilog="Example: salience dead-letters list --topic clicks --error ValidationError")
def list_(
    stage: Stage = None,
    error: Error = None,
    topic: Origin = None,
    limit: Limit = 50,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List dead letters with their origin and reason, and count each kind."""
    from streams.dead_letters import noted, read

    wanted = _filter(stage, error, topic)
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    newest: list[tuple[int, int, int, Letter]] = []
    """A heap, by time: of its partitions, which comes first depends on the brokers."""
    kinds: Counter[tuple[str, str, str]] = Counter()

    async def look() -> set[str]:
        async for letter in read(settings, wanted):
            heappush(newest, (letter.timestamp_ms, letter.partition, letter.offset, letter))
            if len(newest) > limit:
                heappop(newest)
            kinds[letter.told("topic"), letter.told("stage"), letter.told("error")] += 1
        return await noted(settings)

    sent = asked(look())
    kept = [letter for *_, letter in sorted(newest)]
    if as_json:
        told = [_object(letter, sent, whole=False) for letter in kept]
        by_kind = [{"topic": t, "stage": s, "error": e, "count": count} for (t, s, e), count in kinds.most_common()]
        typer.echo(json.dumps({"total": kinds.total(), "kinds": by_kind, "letters": told}))
        return
    table = plain("letter", "when", "from", "why")
    for letter in kept:
        came_from = f"{letter.told('topic')} {letter.told('partition')}:{letter.told('offset')}"
        table.add_row(letter.name, moment(letter.timestamp_ms), came_from, _why(letter, letter.name in sent))
    people = screen(highlight=True)
    none = "There is no such letter." if stage or error or topic else "There is none: all records could be read."
    people.print(table if kept else none)
    for kind, count in kinds.most_common():
        people.print(f"{count:,} × {' / '.join(kind)}")


@app.command(epilog="Example: salience dead-letters show 0:17")
def show(
    letter: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="The letter, as list names it.")],
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show one letter in full: origin, headers, key and value as they came."""
    from streams.dead_letters import Filter, noted, read

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)

    async def look() -> "tuple[Letter | None, set[str]]":
        found = [each async for each in read(settings, Filter(names=[letter]))]
        return (found[0] if found else None), await noted(settings)

    found, sent = asked(look())
    if found is None:
        fail(f"There is no letter {letter}. Those that are there: salience dead-letters list")
    told = _object(found, sent, whole=True)
    if as_json:
        typer.echo(json.dumps(told))
        return
    table = Table(show_header=False)
    for name, value in ({"letter": found.name, "when": moment(found.timestamp_ms)} | told).items():
        table.add_row(name, value if isinstance(value, str) else json.dumps(value))
    screen(highlight=True).print(table)


@app.command(epilog="Example: salience dead-letters requeue --stage state --error LaneFull")
def requeue(
    letters: Annotated[
        list[str] | None, typer.Argument(metavar="PARTITION:OFFSET", help="Only these letters, as list names them.")
    ] = None,
    stage: Stage = None,
    error: Error = None,
    topic: Origin = None,
    every: Annotated[bool, typer.Option("--all", help="All letters; needed if no other choice is given.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be sent, and send nothing.")] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Send records back to the topic they came from, once each, and no record more than three times.

    Mend the cause first: a record that is refused again becomes a new letter.
    Records go to the partition of their key, with their own timestamp and the
    header salience.requeued. An ad is not sent if its owner has published a
    newer version, nor an event of somebody who refuses to be remembered, or who
    was erased after it was sent. Lanes put an event of over a week ago aside, as
    late, unless their SALIENCE_LATE_MS is longer.

    With at_least_once, run one at a time: two at once, or one that ends
    half-way, may send a letter twice. Exit status 1 if a letter was not sent,
    with the reasons.
    """
    from streams.dead_letters import requeue as send_back

    if not (letters or stage or error or topic or every):
        fail("Say which: letters by name, --stage, --error, --topic, or --all.", 2)
    wanted = _filter(stage, error, topic, letters or ())
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    with undone_when_told_to_end():  # a transaction that is left open would hold lanes back
        done = asked(send_back(settings, wanted, dry_run=dry_run))
    for name, why in done.refused.items():
        typer.echo(f"{name} is not sent back: {why}", err=True)
    left = f", {len(done.refused):,} not" if done.refused else ""
    typer.echo(f"{'would be ' if dry_run else ''}sent back: {done.sent:,}{left}", err=as_json)
    if as_json:
        typer.echo(json.dumps({"requeued": 0 if dry_run else done.sent, "refused": done.refused}))
    if done.refused:
        raise typer.Exit(1)


def _filter(stage: str | None, error: str | None, topic: str | None, names: Collection[str] = ()) -> "Filter":
    """The letters asked for; an unknown stage or topic ends the command."""
    from streams.dead_letters import INPUTS, STAGES, Filter

    for option, given, known in (("--stage", stage, STAGES), ("--topic", topic, INPUTS)):
        if given is not None and given not in known:
            fail(f"{option} {given}: expected one of {', '.join(known)}", 2)
    return Filter(stage, error, topic, names)


def _why(letter: "Letter", is_sent_back: bool) -> str:
    """Where and why a letter's record was refused, and whether it was sent back: one cell, as many fit no terminal."""
    message = letter.told("message")
    cut = "…" if len(message) > EXCERPT_CHARS else ""
    why = f"{letter.told('stage')} / {letter.told('error')}: {message[:EXCERPT_CHARS]}{cut}"
    before = f"; sent back before: {letter.requeued}" if letter.requeued else ""
    return why + ("; sent back" if is_sent_back else before)


def _object(letter: "Letter", sent: set[str], *, whole: bool) -> dict[str, Any]:
    """A letter as JSON; ``whole``: with its headers, key and value."""
    told: dict[str, Any] = {"letter": letter.name, "timestamp_ms": letter.timestamp_ms}
    told |= {name: letter.told(name) for name in ("topic", "partition", "offset", "stage", "error", "message")}
    told |= {"requeued": letter.requeued, "sent_back": letter.name in sent, "truncated": letter.truncated}
    if whole:
        told["headers"] = {name: _text(value) for name, value in letter.headers}
        told |= {"key": _text(letter.key), "value": _text(letter.value)}
    return told


def _text(data: bytes | None) -> Any:
    """The text if ``data`` is UTF-8, else ``{"base64": …}``."""
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data or b"").decode()}
