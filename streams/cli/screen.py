"""What people see: text is shown as it is, neither obeyed as markup nor passed to the terminal as control."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from rich import table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

_OBEYED_OR_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What is obeyed, by its category (Unicode 4.5: Cc, Cf, Cs, Zl, Zp): controls, formats, which turn a line around or
hide, and separators of lines; and surrogates, which no terminal's encoding has. Of these, tab and newline are shown.
And what is drawn as nothing, whatever its category: Default_Ignorable_Code_Point (Unicode 5.21, in its file
DerivedCoreProperties.txt). Two names that differ in one of them look alike."""
_JOINING = (
    r"\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06dc\u06df-\u06ef\u06fa-\u06ff\u0710-\u074f\u0750-\u077f"
    r"\u07ca-\u07f5\u0840-\u085b\u0860-\u086a\u0870-\u088e\u0898-\u08e1\u08e3-\u0963\u0971-\u0dff\u1000-\u109f"
    r"\u1780-\u17d3\u1820-\u18aa\u1b00-\u1b4c\ua840-\ua871\ua980-\ua9c0\ufb50-\ufdff\ufe70-\ufefc"
    r"\U00010ac0-\U00010ae6\U00010d00-\U00010d27\U00010f30-\U00010f50\U00011000-\U000114ff\U0001e900-\U0001e94b"
)
"""Letters and marks of scripts whose signs join, or are kept from it: Arabic to N'Ko and Mandaic, the Indic ones,
Myanmar, Khmer, Mongolian and others (Unicode 9.2 and 12.1, ArabicShaping.txt). With them stand digits, which do not."""
_SYMBOLS = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff"
    r"\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
"""Blocks and single signs of what may be an emoji (emoji-variation-sequences.txt)."""


def harmless(text: str) -> str:
    """``text`` with its control characters, and those that are not seen, spelled.

    A terminal obeys the former, the latter make a name pass for another, and anyone may write to a topic.
    """
    return _OBEYED_OR_UNSEEN.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    """A sign as it is shown between its neighbours."""
    if _needed().match(found.string, found.start()):
        return found[0]
    return found[0].encode("unicode_escape").decode()


@cache
def _needed() -> re.Pattern[str]:
    """What is unseen by itself and shows in a sign beside it.

    Joiners, selectors of how a sign is drawn, and the fillers of old Korean syllables. Compiled where it is asked for
    first: most commands meet none, and would begin a hundredth of a second later.
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
