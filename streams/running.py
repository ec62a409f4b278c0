"""Runs the worker's app: signals, exit status."""

import asyncio
import contextlib
import gc
import logging

import faust
import structlog

from streams import topic_admin
from streams.app import create_app
from streams.fatal import say_end
from streams.identity import identify
from streams.log_lines import configure_logging
from streams.settings import Settings
from streams.web import check_port

log = structlog.get_logger()

CANCELLED_S = 1.0
"""Tasks cancelled at the end get this long to finish."""


async def wait_for_cancelled() -> None:
    """Wait for the other tasks to end, for `CANCELLED_S` at most."""
    if cancelled := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(cancelled, timeout=CANCELLED_S)


def say_cleanup(settings: Settings, lanes: int) -> None:
    """Log each topic with another cleanup policy than it is to have: it loses state or ads, or events before they are
    read, after days without any other sign. Other differences may be on purpose. Blocks.

    Nothing is said where this process may not read configs; `salience doctor` of an administrator says it.
    """
    with contextlib.suppress(topic_admin.TopicsError):
        for problem in topic_admin.check(settings.bootstrap, lanes, settings.topic_prefix):
            if problem.what == "cleanup":
                log.warning("a topic does not keep what workers need", topic=problem.message, fix=problem.fix)


class _Worker(faust.Worker):
    async def _sentinel_task(self) -> None:  # mode's own always waits for a second
        await wait_for_cancelled()


def run(settings: Settings, *, log_json: bool = False) -> int:
    """Run until stopped; return the exit status: 0 after an orderly stop, `status_of` the error after a fatal one.

    Raises before anything runs: `ListenError`, `ModelError`, `RecoveryError`, `RulesError`, `TextEncoderError`,
    `TopicsError`.
    """
    check_port(settings)
    configure_logging(log_json=log_json)
    identity = identify(settings)
    say_cleanup(settings, identity.lanes)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(
        create_app(settings, identity),
        loop=loop,
        loglevel=logging.WARNING,
        redirect_stdouts=False,
        override_logging=False,
        quiet=True,
    )
    # Objects loaded so far live for ever: freeze them. A batch makes thousands of objects that are in no cycle; with
    # Python's own threshold, collecting them costs an eighth of the throughput, so raise it. The older generations keep
    # Python's ratio of 10: cycles that libraries leave, as when a broker fails, must go sooner or later.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    worker.spinner = None  # it would write control sequences to a pipe
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        if not stop.code:
            return 0
        error = worker.crash_reason or stop.__context__ or stop
    except Exception as raised:  # noqa: BLE001 - the process ends here, with a line that says why
        error = raised
    return say_end(error)
