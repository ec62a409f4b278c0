"""The first lanes of a process, which may be taken over at the same moment, each on a thread of its own."""

import pickle
import subprocess
import sys
from pathlib import Path

from streams.lanes.clicks import LaneClicks
from tests.unit.keeping import LEARNING, keep, observe, stream

CHILDREN = 40
"""Before decoders were made at import, one in nine crashed (68 of 600); of 40, at least one in 99 of 100 runs."""
RESTORING = """
import os, pickle, sys, threading
from pathlib import Path
import streams.app
from streams.lanes.clicks import LaneClicks
from tests.unit.keeping import LEARNING

kept = pickle.loads(Path(sys.argv[1]).read_bytes())
sys.setswitchinterval(1e-5)
for _ in range(int(sys.argv[2])):
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"a child ended with {status}")
        continue
    at_once = threading.Barrier(2)
    threads = [threading.Thread(target=lambda: (at_once.wait(), LaneClicks.restore(LEARNING, kept))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)
"""


def test_two_lanes_may_be_the_first_of_a_process_to_be_restored_at_once(tmp_path: Path) -> None:
    clicks, kept = LaneClicks(LEARNING), dict[bytes, bytes]()
    events, users = stream(3, 300)
    for start in range(0, len(events), 10):
        keep(kept, observe(clicks, events[start : start + 10], users[start : start + 10]))
    file = tmp_path / "kept"
    file.write_bytes(pickle.dumps(kept))
    command = [sys.executable, "-c", RESTORING, str(file), str(CHILDREN)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert tried.returncode == 0, tried.stderr
