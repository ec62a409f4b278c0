"""Rows of a gzipped CSV file, read as text; whoever asks a field for a number is told where it is none."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.logs import LogError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file, by column."""

    file: Path
    line: int
    values: dict[str, str]

    def text(self, column: str, *, longest: int = 64) -> str:
        """A value that must be there."""
        value = self.values[column]
        if not 1 <= len(value) <= longest:
            raise self.error(column, f"1 to {longest} characters")
        return value

    def integer(self, column: str, least: int, most: int) -> int:
        """A whole number within a range."""
        value = self.values[column]
        if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
            raise self.error(column, f"an integer from {least} to {most}")
        return int(value)

    def number(self, column: str) -> float | None:
        """A number that is not negative, or None where the field is empty."""
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
        return LogError(f"{self.file}, line {self.line}: {column} is {self.values[column]!r}; expected {expected}")


def rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of ``file``, which must have ``columns`` and may have more. Raises `LogError`."""
    try:
        with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
            lines = csv.reader(text)
            header = next(lines, [])
            if missing := [column for column in columns if column not in header]:
                raise LogError(f"{file}, line 1: the columns are {header}; expected also {missing}")
            for values in lines:
                if len(values) != len(header):
                    raise LogError(f"{file}, line {lines.line_num}: {values!r}; expected {len(header)} fields")
                yield Row(file, lines.line_num, dict(zip(header, values, strict=True)))
    except FileNotFoundError as error:
        raise LogError(f"{file} does not exist; expected in the log's folder (--data)") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise LogError(f"{file} cannot be read ({error}); expected a gzipped CSV file in UTF-8") from error
