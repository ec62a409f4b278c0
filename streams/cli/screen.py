"""Output for people: text is shown literally, neither read as markup nor passed on as terminal control."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from rich import table
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_OBEYED_OR_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that terminals obey, by category (Unicode 4.5: Cc, Cf, Cs, Zl, Zp): controls; formats, which reverse or
hide text; line separators; and surrogates, which no terminal's encoding has. Tab and newline are allowed. Also
characters that are drawn as nothing, of any category: Default_Ignorable_Code_Point (Unicode 5.21, in its file
DerivedCoreProperties.txt). Two names that differ in one of them look alike."""
_JOINING = (
    r"\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06ef\u06fa-\u06ff\u0710-\u074f\u0750-\u077f"
    r"\u07ca-\u07f5\u0840-\u085b\u0860-\u086a\u0870-\u088e\u0898-\u08e1\u08e3-\u0963\u0971-\u0dff\u1000-\u109f"
    r"\u1780-\u17d3\u1820-\u18aa\u1b00-\u1b4c\ua840-\ua871\ua980-\ua9c0\ufb50-\ufdff\ufe70-\ufefc"
    r"\U00010ac0-\U00010ae6\U00010d00-\U00010d27\U00010f30-\U00010f50\U00011000-\U000114ff\U0001e900-\U0001e94b"
)
"""Letters and marks of scripts in which joiners change the shape: Arabic to N'Ko and Mandaic, the Indic scripts,
Myanmar, Khmer, Mongolian and others (Unicode 9.2 and 12.1, ArabicShaping.txt). The ranges include digits, which do not
join."""
_SYMBOLS = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff"
    r"\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
"""Blocks and single characters that may be an emoji (emoji-variation-sequences.txt)."""


def harmless(text: str) -> str:
    """``text`` with control and invisible characters escaped.

    Anyone may write to a topic: a terminal obeys control characters, and invisible ones disguise a name as another.
    """
    return _OBEYED_OR_UNSEEN.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    """A character as it is shown between its neighbours: itself if they need it, else escaped."""
    if _needed().match(found.string, found.start()):
        return found[0]
    return found[0].encode("unicode_escape").decode()


@cache
def _needed() -> re.Pattern[str]:
    """Invisible characters that change how a neighbour is drawn.

    Joiners, variation selectors, and the fillers of old Korean syllables. Compiled at first use: most commands meet
    none, and would otherwise start 10 ms later.
    """
    return re.compile(
        rf"(?<=[{_JOINING}])(?<!\d)[\u200c\u200d]"
        rf"|(?:(?<=[{_SYMBOLS}])|(?<=[{_SYMBOLS}]\ufe0f))\u200d(?=[{_SYMBOLS}])"
        rf"|(?<=[{_SYMBOLS}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
        r"|(?<=[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
        r"|(?<=[\u1820-\u18aa])[\u180b-\u180f]"  # Mongolian
        r"|(?<=[\u0591-\u05f2])\u034f(?=[\u0591-\u05c7])"  # Hebrew, before a point
        r"|\u115f(?=[\u1160-\u11a7\ud7b0-\ud7c6])|(?<=[\u1100-\u115f\ua960-\ua97c])\u1160(?=[\u11a8-\u11ff\ud7cb-\ud7fb])"
    )


def one_line(text: str) -> str:
    """``text`` on one line: a line of its own would look like another record."""
    return harmless(text).replace("\n", r"\n")


def moment(time_ms: int, form: str = "%Y-%m-%d %H:%M:%SZ") -> str:
    """A time in UTC, by a format of `datetime.strftime`; in ms if no calendar has it, as producers may write."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def percent(share: float) -> str:
    """Three digits, however small: 0% would mean nobody."""
    return f"{100 * share:.3g}%"


class Table(table.Table):
    """Rich's table, but cells that do not fit are folded: a number or a name that is cut off misleads."""

    def add_column(self, *header: Any, **how: Any) -> None:
        super().add_column(*header, **{"overflow": "fold", **how})


def plain(*headings: str) -> Table:
    """A table without lines, of so many columns that lines would break words on a terminal of eighty."""
    return Table(*headings, box=None, padding=(0, 1, 0, 0))


class _Screen(Console):
    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(harmless(text), **how)


def screen(
    *, stderr: bool = False, highlight: bool = False, soft_wrap: bool = False, width: int | None = None
) -> Console:
    """The one way to print for people; ``highlight`` colours numbers and names. To colour text: `coloured`."""
    return _Screen(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, width=width, markup=False, emoji=False)


def coloured(text: str, style: str = "") -> Text:
    """Text in a style, such as ``bold red``."""
    return Text(harmless(text), style)


def left_out(count: int, topic: str) -> None:
    """Say on stderr how many records of a topic are unreadable: a foreign record must not end a command."""
    if count:
        records, are = ("record", "is") if count == 1 else ("records", "are")
        screen(stderr=True, soft_wrap=True).print(f"{count:,} {records} on {topic} {are} unreadable and left out")


def bars(console: Console, **how: Any) -> Progress:
    """A bar for each task: how much of how much is done, and since when it runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, **how)


def spinner(console: Console, **how: Any) -> Progress:
    """What is done, and since when, where nobody knows how much there is; it is gone in the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, **how)


@contextmanager
def asking(what: str = "Asking brokers") -> Iterator[Callable[[str], None]]:
    """Show on a terminal what the block does, and since when, until it is told what it does now.

    A command asks dozens of questions, each a round trip or more: over a slow link it would be silent for a minute.
    """
    people = screen(stderr=True)
    with spinner(people, disable=not people.is_terminal) as shown:
        task = shown.add_task(what)
        yield lambda now: shown.update(task, description=now)


@contextmanager
def reading(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show on a terminal how far each topic has been read: a shop's topics take minutes."""
    people = screen(stderr=True)
    with bars(people, transient=True, disable=as_json or not people.is_terminal) as told:
        tasks = defaultdict[str, TaskID](partial(told.add_task, "Reading", total=None))
        yield lambda topic, read, there: told.update(
            tasks[topic], description=f"Reading {topic}", completed=read, total=there
        )
