"""What people see: text is shown as it is, neither obeyed as markup nor passed to the terminal as control."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from unicodedata import category

from rich import table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

_SPELLED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories (Unicode 4.5) of what is obeyed: controls, formats, which turn a line around or hide, and separators of
lines; and surrogates, which no terminal's encoding has."""
_SHOWN = frozenset("\t\n\u200c\u200d")
"""Of these, tab and newline, and what scripts and emoji need to tell joined signs from others."""


def harmless(text: str) -> str:
    """``text`` with its control characters spelled: a terminal obeys them, and anyone may write to a topic."""
    return text if text.isprintable() else "".join(map(_spelled, text))


def _spelled(sign: str) -> str:
    obeyed = category(sign) in _SPELLED and sign not in _SHOWN
    return sign.encode("unicode_escape").decode() if obeyed else sign


def one_line(text: str) -> str:
    """``text`` that begins no line of its own: it would pass for what another record says."""
    return harmless(text).replace("\n", r"\n")


def moment(time_ms: int, form: str) -> str:
    """A time in UTC, by a form of `datetime.strftime`; one that no calendar has, as producers may write, as it is."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def percent(share: float) -> str:
    """Three digits, however small: 0% would say that it is nobody's."""
    return f"{100 * share:.3g}%"


class Table(table.Table):
    """Rich's, but where it does not fit its cells are folded: half a number is another, half a name is nobody's."""

    def add_column(self, *header: Any, **how: Any) -> None:
        super().add_column(*header, **{"overflow": "fold", **how})


class _Screen(Console):
    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(harmless(text), **how)


def screen(
    *, stderr: bool = False, highlight: bool = False, soft_wrap: bool = False, width: int | None = None
) -> Console:
    """The one way to print for people; ``highlight`` colours numbers and names. Colours of texts: `coloured`."""
    return _Screen(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, width=width, markup=False, emoji=False)


def coloured(text: str, style: str = "") -> Text:
    """Text in a style, such as ``bold red``."""
    return Text(harmless(text), style)


def left_out(count: int, topic: str) -> None:
    """Say on stderr that so many records of a topic are no messages: one of a stranger's hand ends no command."""
    if count:
        records, are = ("record", "is") if count == 1 else ("records", "are")
        screen(stderr=True, soft_wrap=True).print(f"{count:,} {records} on {topic} {are} unreadable and left out")


@contextmanager
def reading(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """How far each topic has been read, to people who look on: a shop's take minutes."""
    people = screen(stderr=True)
    columns = (TextColumn("Reading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=people, transient=True, disable=as_json or not people.is_terminal) as bars:
        tasks = defaultdict[str, TaskID](partial(bars.add_task, "", total=None))
        yield lambda topic, read, there: bars.update(tasks[topic], description=topic, completed=read, total=there)
