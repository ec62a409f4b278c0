"""Parts of libraries that are loaded with others and not used: put off until something does use them."""

import importlib.util
import sys

UNUSED = ("scipy.stats", "river.proba")
"""River's linear models load its distributions, and those SciPy's statistics. No worker asks either for anything; they
are a third of the processor time that its imports take, and 44 MB of its memory."""


def put_off() -> None:
    """Load `UNUSED` at the first use of each, and not where they are imported. To be called before anything loads
    River; what is loaded already stays.
    """
    for name in UNUSED:
        parent, _, own = name.rpartition(".")
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)  # which waits until something is asked of it
        setattr(sys.modules[parent], own, module)
