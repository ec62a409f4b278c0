"""A pytest plugin: tell each failure when it happens, so that a run that is cut short or hangs has told them."""

import gc
from collections.abc import Generator

import pytest

CAUSE_MAX = 1_500
"""Characters of the first internal error that are told at the end: what keeps the last 2 KB of a run has its cause."""


class _Teller:
    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal
        self._internal_error = ""

    @pytest.hookimpl(trylast=True)
    def pytest_internalerror(self, excrepr: object) -> None:
        self._internal_error = self._internal_error or str(excrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._internal_error:
            self._terminal.write_line("The first internal error, again:", red=True)
            self._terminal.write_line(self._internal_error[-CAUSE_MAX:])

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"FAILED {report.nodeid} ({report.when}), after all others again:", red=True)
            self._terminal.write_line(report.longreprtext)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No garbage is sought while a failure's source is parsed.

    CPython 3.11 counts the depth of a parse for all parses together: one within another ends the outer by a SystemError
    ("AST constructor recursion depth mismatch", pytest-dev/pytest#10763). A future that is collected there logs the
    traceback of its error, for which it parses, and the run would end instead of telling the failure.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if collecting:
            gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Of several processes only the one that others report to writes."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Teller(terminal))
