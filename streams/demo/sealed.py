"""Hides a running shop's settings from the demo: it must neither reach that shop nor fail because of its settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from streams.settings import Settings


@contextmanager
def sealed() -> Iterator[None]:
    """In the block, neither this process nor those that it starts have any settings of the caller."""
    prefix = Settings.model_config["env_prefix"]
    # Names of settings are read in upper and lower case.
    kept = {name: os.environ.pop(name) for name in [*os.environ] if name.upper().startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(kept)
