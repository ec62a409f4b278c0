"""Files with personal data, and folders for them: only the user who writes them can read them."""

import os
from pathlib import Path
from typing import BinaryIO


def own_folder(folder: Path) -> None:
    """Make ``folder`` and missing folders above it, closed to others; existing folders keep their mode.

    Raises `OSError`.
    """
    missing = [each for each in folder.parents if not each.exists()]
    for each in (*reversed(missing), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def own_file(file: Path) -> BinaryIO:
    """Make ``file`` anew and open it for writing. Raises `OSError`.

    A former file is deleted, not opened: it may be somebody else's, or a link to another file.
    """
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
