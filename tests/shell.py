"""The shell that tests are started from: what it sets for programs changes nothing of what tests expect."""

from collections.abc import MutableMapping

from tests.needs import VARIABLE

PRINTING = (
    "COLUMNS",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "LINES",
    "NO_COLOR",
    "PY_COLORS",
    "TERMINAL_WIDTH",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "TYPER_USE_RICH",
)
"""By these, rich and typer choose colours and widths."""


def settle(environment: MutableMapping[str, str]) -> None:
    """Take the settings of a shop, which tests must not reach either, and what programs print by out of it.

    Servers of tests are on this machine: no proxy is asked for them.
    """
    for name in [*environment]:
        setting = name.upper().startswith("SALIENCE_") and name != VARIABLE
        if setting or name in PRINTING:
            del environment[name]
    environment["no_proxy"] = "*"
