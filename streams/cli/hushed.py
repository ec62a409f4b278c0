"""What libraries log is kept from the screen of a command that reports their failures itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed(*libraries: str, below: int = logging.CRITICAL) -> Iterator[None]:
    """Until it ends, nothing ``below`` this level is told of what ``libraries`` log.

    Then all is as before, since the process may go on.
    """
    loggers = [logging.getLogger(library) for library in libraries]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(below)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
