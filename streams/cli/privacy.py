"""``salience privacy``: a person's data, their consent, and their erasure with its proof."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, answer, as_text, asked, settings_of
from streams.cli.screen import moment, plain, reading, screen
from streams.clock import wall_ms
from streams.control_wire import Consent, ControlMessage, Erasure
from streams.topics import CONTROL, TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.privacy.held import Looked, Trace
    from streams.settings import Settings

app = typer.Typer(help="Record consent; export and erase a person's data, and prove the erasure.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="A user_id; with --keys, the name that the pseudonyms replaced.")]
Keys = Annotated[
    Path | None,
    typer.Option(help="File of pseudonym keys, newest first (streams/privacy/pseudonyms.py): acts on every pseudonym."),
]


@app.command(epilog="Example: salience privacy consent user-1 --refused")
def consent(
    user: User,
    granted: Annotated[
        bool | None, typer.Option("--granted/--refused", help="The person's answer; it holds until the next one.")
    ] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    keys: Keys = None,
    as_json: Json = False,
) -> None:
    """Record a person's answer. On a no their lane forgets them; from then on placements use the context alone."""
    if granted is None:
        fail(f"what {user} has answered is not said; expected --granted or --refused", 2)
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    messages = [Consent(user_id=each, granted=granted, time_ms=wall_ms()) for each in _users(user, keys)]
    _publish(settings, messages, as_json=as_json)


@app.command(epilog="Example: salience privacy erase user-1 && salience privacy prove user-1")
def erase(
    user: User, bootstrap: Bootstrap = None, prefix: Prefix = None, keys: Keys = None, as_json: Json = False
) -> None:
    """Request the erasure of all data of a person: their lane forgets it within a slice, for good.

    State and placement get tombstones at once. Compaction removes their former
    values; events and receipts go when their topics' retention ends:
    deploy/PRIVACY.md.
    """
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    _publish(settings, [Erasure(user_id=each, time_ms=wall_ms()) for each in _users(user, keys)], as_json=as_json)


@app.command(epilog="Example: salience privacy export user-1 --json > user-1.json")
def export(
    user: User, bootstrap: Bootstrap = None, prefix: Prefix = None, keys: Keys = None, as_json: Json = False
) -> None:
    """Show all data of a person on the topics: events, state, placements, receipts, requests."""
    from streams.privacy.held import export as export_records

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    with reading(as_json) as progress:
        found = asyncio.run(export_records(settings, _users(user, keys), progress))
    if as_json:
        answer({"records": found})
        return
    console = screen(highlight=True)
    for record in found:
        shown = "forgotten" if record.value is None else msgspec.json.encode(record.value).decode()
        console.print(
            f"{record.topic}/{record.partition}@{record.offset} {moment(record.time_ms)} {shown}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    typer.echo(f"{len(found)} records", err=True)


@app.command(epilog="Example: salience privacy prove user-1")
def prove(
    user: User,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    keys: Keys = None,
    no_snapshots: Annotated[
        bool,
        typer.Option("--no-snapshots", help="No worker has run on this machine: accept a missing snapshots folder."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every topic and this machine's snapshots, and say what data of a person is left.

    Run it as the workers' account, with their SALIENCE_HOME: only their owner
    can read snapshots. The requests themselves may be left on purpose. Brokers
    delete whole closed segments, so a record may outlive its retention by the
    topic's segment.ms.

    Exit status 0 if nothing is left, 1 if something is, or if it could not look.
    """
    from streams.privacy.held import require_readable_snapshots, snapshots_with, traces, verdict

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    users = _users(user, keys)
    require_readable_snapshots(settings, none_here=no_snapshots)
    with reading(as_json) as progress:
        found = asyncio.run(traces(settings, users, progress))
    looked = snapshots_with(settings, users)
    gone = verdict(found, looked)
    if as_json:
        told = {
            "gone": gone,
            "topics": found,
            "snapshots": [str(path) for path in looked.holding],
            "snapshots_read": looked.count,
            "snapshots_folder": str(looked.folder),
        }
        answer(told)
    else:
        _show(found, looked, gone=gone)
    if not gone:
        raise typer.Exit(1)


@app.command(epilog="Example: salience privacy prune")
def prune(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Remove erasure requests older than SALIENCE_ERASED_KEPT_MS: no topic still holds the data that they block.

    A request stays while a consent stands that it has ended.
    """
    from streams.privacy.pruning import prune as take_back

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    count = asked(take_back(settings, wall_ms() - settings.erased_kept_ms))
    typer.echo(f'{{"taken_back":{count}}}' if as_json else f"{count} erasure requests taken back.")


def _users(user: str, keys: Path | None) -> list[str]:
    """The user_ids to act on: ``user``, or its pseudonyms."""
    if not user:
        fail("no person is named; expected a user_id: an unset variable gives none", 2)
    if keys is None:
        return [as_text(user)]
    from streams.privacy.pseudonyms import PseudonymError, Pseudonyms

    try:
        return Pseudonyms.read(keys).all(as_text(user))
    except (OSError, PseudonymError) as error:
        fail(error, 2)


def _publish(settings: "Settings", messages: "Sequence[ControlMessage]", *, as_json: bool) -> None:

    from streams.control import publish, read_message
    from streams.reading import partitions_of

    for message in messages:  # lanes would refuse an invalid one, and the request would never be met
        try:
            read_message(message.key, msgspec.json.encode(message))
        except ValueError as error:
            fail(error)
    partitions_of(settings.bootstrap, settings.topic_prefix + CONTROL)  # before a producer waits for a missing topic
    offsets = asked(publish(settings, messages))
    if as_json:
        answer({"offsets": offsets})
    else:
        typer.echo(f"Asked for, at offset {', '.join(map(str, offsets))} of the control topic.")


def _show(found: "Sequence[Trace]", looked: "Looked", *, gone: bool) -> None:
    table = plain("topic", "current", "former", "tombstones", "requests", "newest", "goes")
    table.columns[0].no_wrap = True
    compacted = {topic.name for topic in TABLE if topic.cleanup == "compact"}
    for trace in found:
        stays = "by compaction" if trace.topic in compacted else "never: no retention"
        goes = "-" if not trace.held else stays if trace.goes_ms is None else moment(trace.goes_ms)
        counts = (f"{count:,}" for count in (trace.current, trace.former, trace.tombstones, trace.requests))
        newest = "-" if trace.newest_ms is None else moment(trace.newest_ms)
        table.add_row(trace.topic, *counts, newest, goes)
    console = screen(highlight=True)
    console.print(table)
    console.print(f"Snapshots read: {looked.count:,}, in {looked.folder}.", soft_wrap=True)
    for path in looked.holding:
        goes = "the lane's next snapshot here replaces it, or a worker deletes it when it is old: or delete it"
        console.print(f"{path} holds a row; {goes}.", soft_wrap=True)
    console.print("Nothing is left." if gone else "Something is left.")
