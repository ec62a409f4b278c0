"""Rows of a CSV file, gzipped or not, read as text. A field that is not the number asked for raises an error with its
line.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from streams.logs import EXPECTED_TIME, SECONDS, LogError, shown

GZIP = b"\x1f\x8b"
"""What a gzipped file begins with."""
DIGITS_MAX = 20
"""Digits of an integer: 64 bits have no more, and Python refuses numbers of thousands of digits."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file, by column."""

    file: Path
    line: int
    values: dict[str, str]

    def text(self, column: str, *, longest: int = 64) -> str:
        """A value of 1 to ``longest`` characters."""
        value = self.values[column]
        if not 1 <= len(value) <= longest:
            raise self.error(column, f"1 to {longest} characters")
        return value

    def name(self, column: str, *, longest: int) -> str:
        """The same, of a name that may be a number: without the ``.0`` by which pandas writes it (`_whole`)."""
        value = self.text(column, longest=longest)
        return str(number) if (number := _whole(value)) >= 0 and value == f"{number}.0" else value

    def integer(self, column: str, least: int, most: int) -> int:
        """An integer from ``least`` (0 or above) to ``most``."""
        number = _whole(self.values[column])
        if not least <= number <= most:
            raise self.error(column, f"an integer from {least} to {most}")
        return number

    def integer_if_told(self, column: str, least: int, most: int) -> int | None:
        """The same; None where the field is empty."""
        return self.integer(column, least, most) if self.values[column] else None

    def time_ms(self, column: str, most: int) -> int:
        """A time in milliseconds; refuses one in another unit."""
        time_ms = _whole(self.values[column])
        if not 0 <= time_ms <= most or time_ms in SECONDS:
            raise self.error(column, EXPECTED_TIME)
        return time_ms

    def number(self, column: str) -> float | None:
        """A number, 0 or above; None where the field is empty."""
        value = self.values[column]
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise self.error(column, "a number from 0, or nothing")
        return number

    def error(self, column: str, expected: str) -> LogError:
        """What is wrong with a field of this row."""
        return LogError(f"{self.file}, line {self.line}: {column} is {shown(self.values[column])}; expected {expected}")


def _whole(value: str) -> int:
    """The integer that ``value`` spells; -1 where it spells none, or has a sign.

    It may end with ``.0``: pandas writes so a column of integers of which one is missing.
    """
    digits = value.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX else -1


def rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of ``file``, at least one; it must have ``columns`` and may have more. Raises `LogError`."""
    try:
        with _opened(file) as text:
            yield from _rows(file, text, columns)
    except FileNotFoundError as error:
        raise LogError(f"{file} does not exist; expected in the log's folder") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise LogError(f"{file} cannot be read ({error}); expected a CSV file in UTF-8, gzipped or not") from error


def _opened(file: Path) -> TextIO:
    """The file's text, without the mark of UTF-8 that spreadsheets put before it. Raises `LogError` if it is a pipe."""
    if file.is_fifo():
        raise LogError(f"{file} is a pipe; expected a file, since it is read more than once: write it to one")
    with file.open("rb") as held:
        zipped = held.read(len(GZIP)) == GZIP
    opening = gzip.open if zipped else open
    return cast("TextIO", opening(file, "rt", encoding="utf-8-sig", newline=""))


def _rows(file: Path, text: TextIO, columns: Sequence[str]) -> Iterator[Row]:
    lines = csv.reader(text)
    header = next(lines, [])
    if missing := [column for column in columns if column not in header]:
        raise LogError(f"{file}, line 1: the columns are {shown(header)}; expected also {missing}")
    if len(set(header)) < len(header):
        raise LogError(f"{file}, line 1: the columns are {shown(header)}; expected each once")
    found = False
    for values in filter(None, lines):  # skips blank lines, as at the end
        if len(values) != len(header):
            raise LogError(f"{file}, line {lines.line_num}: {shown(values)}; expected {len(header)} fields")
        found = True
        yield Row(file, lines.line_num, dict(zip(header, values, strict=True)))
    if not found:
        raise LogError(f"{file} has no rows; expected some after the columns")
