"""One target under libFuzzer, until its limits or its first finding: ``python -m tests.fuzz.child NAME …``."""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
import structlog


def main() -> None:
    """Begin from the target's seeds and the corpus; libFuzzer ends the process."""
    name, grown, kept, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["streams", "scoring"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")  # an overflow is a finding
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (Path(grown) / f"seed-{number}").write_bytes(seed)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary:
        for word in target.words:
            dictionary.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')
        dictionary.flush()
        folders = [grown, *([kept] if Path(kept).is_dir() else [])]
        limits = [f"-max_len={target.size_max}", *([f"-dict={dictionary.name}"] if target.words else [])]
        atheris.Setup([sys.argv[0], *folders, *limits, *options], target.start())
        atheris.Fuzz()


if __name__ == "__main__":
    main()
