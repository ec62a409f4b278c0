"""Parts of libraries that are loaded with others and not used: put off until something does use them."""

import importlib.util
import sys
import threading
from importlib.abc import Loader
from types import ModuleType
from typing import Any

UNUSED = ("scipy.stats", "river.proba")
"""River's linear models load its distributions, and those SciPy's statistics. No worker asks either for anything; they
are a third of the processor time that a worker's imports take."""

_waiting: dict[str, Loader] = {}
_loading = threading.RLock()


class _PutOff(ModuleType):
    """A module that is loaded when it is asked for what it lacks.

    Its file and its specification it has. So whoever looks through all modules for a file, as ``inspect`` does for
    Faust's agents, loads none, which the standard library's ``LazyLoader`` would.
    """

    def __getattr__(self, name: str) -> Any:
        with _loading:  # which lets in again what is being loaded and asks for parts of itself
            loader = _waiting.pop(self.__name__, None)
            if loader is not None:
                loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]  # which is its base
        return ModuleType.__getattribute__(self, name)


def put_off() -> None:
    """Load `UNUSED` at the first use of each, and not where they are imported. To be called before anything loads
    River; what is loaded already stays.
    """
    for name in UNUSED:
        parent, _, own = name.rpartition(".")
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _PutOff
        _waiting[name] = spec.loader
        sys.modules[name] = module
        setattr(sys.modules[parent], own, module)
