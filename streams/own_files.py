"""Files that tell of people, and folders for them: whoever writes them reads them, and nobody else on the machine."""

import os
from pathlib import Path
from typing import BinaryIO


def own_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, where they are missing; one that is there stays as open as it is.

    Raises `OSError`.
    """
    missing = [each for each in folder.parents if not each.exists()]
    for each in (*reversed(missing), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def own_file(file: Path) -> BinaryIO:
    """``file``, made anew and open to be written. Raises `OSError`.

    What stood there is deleted and not opened: it may be somebody else's, or lead to another file.
    """
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
