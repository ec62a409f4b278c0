"""Parts of libraries that are loaded with others and not used: put off until something does use them."""

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

UNUSED = ("scipy.stats", "river.proba")
"""River's linear models load its distributions, and those SciPy's statistics. Hardly any command asks either for
anything; they are a third of the processor time that a worker's imports take."""

_loading = threading.RLock()


class _PutOff(ModuleType):
    """A module that is loaded when it is asked for what it lacks.

    Its file and its specification it has. So whoever looks through all modules for a file, as ``inspect`` does for
    Faust's agents, loads none, which the standard library's ``LazyLoader`` would.
    """

    def __getattr__(self, name: str) -> Any:
        with _loading:  # which lets in again what is being loaded and asks for parts of itself
            spec = ModuleType.__getattribute__(self, "__spec__")
            if isinstance(spec.loader, _Later):
                spec.loader = self.__loader__ = spec.loader.loader
                self.__path__ = spec.submodule_search_locations
                spec.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]  # which is its base
        return ModuleType.__getattribute__(self, name)


class _Later(Loader):
    """Leaves what ``loader`` would load as `_PutOff`."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        del module.__path__  # else a module within it would be loaded before it
        module.__class__ = _PutOff


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in UNUSED else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


def put_off() -> None:
    """Load `UNUSED` at the first use of each, and not where they are imported; what is loaded already stays."""
    sys.meta_path.insert(0, _Finder())
