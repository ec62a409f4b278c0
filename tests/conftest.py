"""Settings for all tests."""

import asyncio
import gc
import inspect
import os

# As in every command (`streams.cli`): with several processes, OpenBLAS threads would busy-wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest

from tests.shell import settle

# No deadline: on a busy machine it would fail correct code. Examples are derived from the test, so that a commit passes
# or fails only by what it changes; `make explore` searches for new ones.
hypothesis.settings.register_profile("salience", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False, max_examples=1_000, print_blob=True)
hypothesis.settings.load_profile("salience")

pytest_plugins = ["tests.failures"]


# What pytest makes of some 7,000 tests lives until the end: neither while it is made nor later is garbage sought there.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Once pytest knows how it prints, and before any test is imported."""
    settle(os.environ)


def pytest_collection_finish() -> None:
    """Tests run with Python's own collection of garbage."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that awaits runs in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asked = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in asked}))
    return True
