"""A demo among the settings of a shop that runs: it must not reach out to it, nor fail of what the shop needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from streams.settings import Settings


@contextmanager
def sealed() -> Iterator[None]:
    """In the block, neither this process nor one that it starts has a setting of its caller's."""
    prefix = Settings.model_config["env_prefix"]
    # Upper or lower case is all one to those who read settings.
    kept = {name: os.environ.pop(name) for name in [*os.environ] if name.upper().startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(kept)
