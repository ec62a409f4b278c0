"""A slice of the fuzzing for every run of the tests: seeds, what was once found, and a few hundred mutations of them.

Blind where ``make fuzz`` is guided by coverage, but the same everywhere, and it needs nothing installed.
"""

import tempfile

import numpy as np
import pytest

from tests.fuzz.run import CORPUS
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

MUTATIONS = {"graph": 30, "http": 60, "slice": 40}
"""Of the slow ones; `FAST` of the others."""
FAST = 200


def mutated(rng: np.random.Generator, data: bytes, target: Target) -> bytes:
    """Bytes changed, cut out, doubled or put in, one to four times."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(0, len(out) + 1)), int(rng.integers(1, 9))
        match int(rng.integers(0, 5)):
            case 0 if at < len(out):
                out[at] = int(rng.integers(0, 256))
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + 8 * length]
            case 3 if target.words:
                out[at:at] = target.words[int(rng.integers(0, len(target.words)))]
            case _:
                out[at:at] = rng.bytes(length)
    return bytes(out[: target.size_max])


@pytest.fixture(autouse=True)
def _tidy(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets' files go with the test's; its own folder's path would be too long for a socket."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("fuzz")))


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_are_taken_or_refused_as_promised(name: str) -> None:
    target = TARGETS[name]
    seeds = [*target.seeds(), *(path.read_bytes() for path in sorted((CORPUS / name).glob("*"))), b""]
    rng = np.random.default_rng([7, len(name)])
    check = target.start()

    for data in seeds:
        check(data)
    for _ in range(MUTATIONS.get(name, FAST)):
        check(mutated(rng, seeds[int(rng.integers(0, len(seeds)))], target))
