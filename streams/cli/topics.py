"""``salience topics``: create and check the topics that the workers need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli.failing import fail
from streams.cli.options import Brokers, Json, PlainPrefix, answer, named, settings_of
from streams.cli.screen import Table, screen

if TYPE_CHECKING:
    from streams.topic_admin import Problem

app = typer.Typer(help="Create and check the topics.", no_args_is_help=True)

PartitionsOption = Annotated[
    int | None,
    typer.Option(
        "--partitions",
        min=1,
        help="Number of lanes: the most workers that can share the work.",
        show_default="as many as the topics that are there, else 4",
    ),
]
ReplicationOption = Annotated[
    int | None,
    typer.Option(
        "--replication",
        min=1,
        help="Replication factor of the topics that it creates.",
        show_default="as many as there are brokers, up to 3, or as the topics that are there, if more",
    ),
]
ConfigureOption = Annotated[
    bool, typer.Option("--configure", help="Also set the configs of topics that exist already.")
]
PrincipalOption = Annotated[
    str | None,
    typer.Option(
        help="Principal that gets the rights, as the brokers name it; used verbatim.",
        show_default="User: and the role's name",
    ),
]


BOOTSTRAP = "127.0.0.1:9092"
LANES = 4
"""Partitions where no topic exists yet."""


@app.command(epilog="Example: salience topics create --partitions 12")
def create(
    bootstrap: Brokers = BOOTSTRAP,
    partitions: PartitionsOption = None,
    prefix: PlainPrefix = "",
    replication: ReplicationOption = None,
    configure: ConfigureOption = False,
    as_json: Json = False,
) -> None:
    """Create the missing topics; existing ones keep their partitions and data.

    If existing topics have other numbers of partitions, it creates none, with
    exit status 1: workers need the same.
    """
    from streams import topic_admin, topics

    there = topic_admin.found(bootstrap, topics.names(prefix))
    beside = topic_admin.beside(there, prefix) or topic_admin.Found("", LANES)
    enough = topic_admin.enough_copies(bootstrap)
    partitions, replication = partitions or beside.partitions, replication or max(beside.copies, enough)
    configured = topic_admin.configure(bootstrap, prefix) if configure else []
    counts = {name: topic.partitions for name, topic in there.items()}
    seen = {name: topic_admin.Seen(topic.partitions, None, topic.copies) for name, topic in there.items()}
    problems = topic_admin.compare(seen, partitions, prefix, f"--bootstrap {bootstrap}", enough)
    differing = [problem for problem in problems if problem.what == "partitions"]
    created = [] if differing else topic_admin.create(bootstrap, partitions, prefix, replication)
    people = screen(stderr=as_json)
    table = Table("topic", "partitions", "cleanup", "", "what it is for")
    for topic in topics.TABLE:
        name = prefix + topic.name
        done = "created" if name in created else "configured" if name in configured else "was there"
        if differing and name not in counts:
            done = "not created"
        table.add_row(name, str(counts.get(name, topic.partitions(partitions))), topic.cleanup, done, topic.purpose)
    people.print(table)
    if created:
        expected = f", expected {enough}" if replication < enough else ""
        people.print(f"Replication factor of those created: {replication}{expected}.")
    problems = differing + [problem for problem in problems if problem.what == "copies"]
    _tell(problems, people)
    if as_json:
        told = {"created": created, "existing": [name for name in topics.names(prefix) if name in counts]}
        made = {"replication": replication, "configured": configured}
        answer({**told, **made, "problems": _objects(problems)})
    if differing:
        raise typer.Exit(1)


@app.command(epilog="Example: salience topics check --partitions 12 --json")
def check(
    bootstrap: Brokers = BOOTSTRAP,
    partitions: PartitionsOption = None,
    prefix: PlainPrefix = "",
    as_json: Json = False,
) -> None:
    """Say what keeps workers from running on these topics: exit status 0 if nothing does, else 1.

    A config that differs from what create sets is only a note: it may be on
    purpose.
    """
    from streams import topic_admin, topics

    if partitions is None:
        beside = topic_admin.beside(topic_admin.found(bootstrap, topics.names(prefix)), prefix)
        partitions = beside.partitions if beside else LANES
    problems = topic_admin.check(bootstrap, partitions, prefix)
    failing = [problem for problem in problems if problem.fails]
    people = screen(stderr=as_json)
    _tell(problems, people)
    if not failing:
        remarked = any(problem.what in ("copies", "configs") for problem in problems)
        well = "what workers need" if remarked else "as they should be"
        people.print(f"All {len(topics.TABLE)} topics at {bootstrap} are {well}.", soft_wrap=True)
    if as_json:
        answer({"ok": not failing, "problems": _objects(problems)})
    if failing:
        raise typer.Exit(1)


@app.command(epilog="Example: salience topics acls --role worker --principal User:worker --apply")
def acls(
    role: Annotated[str | None, typer.Option(help="Role, as deploy/ACLS.md names it; else all roles.")] = None,
    principal: PrincipalOption = None,
    bootstrap: Brokers = BOOTSTRAP,
    prefix: PlainPrefix = "",
    group: Annotated[
        str, typer.Option(callback=named, help="Consumer group of the workers.", envvar="SALIENCE_GROUP")
    ] = "salience",
    apply: Annotated[
        bool, typer.Option("--apply", help="Set the rights on the brokers; your own account must be allowed to.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of deploy/ACLS.md.")] = False,
    as_json: Json = False,
) -> None:
    """Print the least rights that a role needs as kafka-acls.sh lines, or set them."""
    from streams import acls as rights

    if markdown:
        typer.echo(rights.table(), nl=False)
        return
    if role is not None and role not in rights.ROLES:
        fail(f"--role {role}: expected one of {', '.join(rights.ROLES)}", 2)
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, group=group)
    given = {each: f"User:{each}" if principal is None else principal for each in ([role] if role else rights.ROLES)}
    lines = [rights.command(line, who, settings) for each, who in given.items() for line in rights.of_role(each)]
    if apply:
        for each, who in given.items():
            count = rights.apply(settings, each, who)
            screen(stderr=as_json).print(f"{who} has the {count} rights of the role {each}.")
    if as_json:
        answer({"lines": lines, "applied": apply})
    elif not apply:
        typer.echo("\n".join(lines))


def _tell(problems: "Sequence[Problem]", people: Console) -> None:
    """Print what is wrong, then what resolves it."""
    for problem in problems:
        people.print(f"{'Error' if problem.fails else 'Note'}: {problem.message}", soft_wrap=True)
    for fix in dict.fromkeys(problem.fix for problem in problems if problem.fix):
        people.print(f"To resolve it: {fix}", soft_wrap=True)


def _objects(problems: "Sequence[Problem]") -> list[dict[str, object]]:
    return [{"topic": p.topic, "what": p.what, "fails": p.fails, "message": p.message, "fix": p.fix} for p in problems]
