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

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories (Unicode 4.5) of what is obeyed: controls, formats, which turn a line around or hide, and separators of
lines; and surrogates, which no terminal's encoding has. Of these, tab and newline are shown."""
_UNSEEN = frozenset(
    chr(code)
    for first, last in (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
        (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    )
    for code in range(first, last + 1)
)  # fmt: skip
"""What is drawn as nothing, whatever its category: Default_Ignorable_Code_Point (Unicode 5.21, in its file
DerivedCoreProperties.txt). Two names that differ in one of them look alike."""
_JOINING = frozenset("\u200c\u200d").union(map(chr, range(0xFE00, 0xFE10)))
"""Of these, what scripts and emoji need beside a sign of theirs: joiners, and selectors of how it is drawn."""


def harmless(text: str) -> str:
    """``text`` with its control characters, and those that are not seen, spelled.

    A terminal obeys the former, the latter make a name pass for another, and anyone may write to a topic.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_spelled, text, " " + text, text[1:] + " "))


def _spelled(sign: str, before: str, after: str) -> str:
    """``sign`` as it is shown between its neighbours."""
    if sign in _JOINING:
        shown = _may_be_joined(before) or _may_be_joined(after)
    else:
        shown = sign in "\t\n" or not (sign in _UNSEEN or category(sign) in _OBEYED)
    return sign if shown else sign.encode("unicode_escape").decode()


def _may_be_joined(sign: str) -> bool:
    return not (sign.isascii() or sign in _UNSEEN)


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
