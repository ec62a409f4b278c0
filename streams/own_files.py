"""Files that tell of people, and folders for them: whoever writes them reads them, and nobody else on the machine."""

from contextlib import suppress
from pathlib import Path


def own_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, where they are missing; one that is there stays as open as it is.

    Raises `OSError`.
    """
    missing = [each for each in folder.parents if not each.exists()]
    for each in (*reversed(missing), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def own_file(file: Path) -> Path:
    """``file``, to be written: made where it is missing, and closed to others where it was open. Raises `OSError`."""
    file.touch(mode=0o600)
    with suppress(PermissionError):  # of a file system that knows no owners, as of a USB stick: nothing can be closed
        file.chmod(0o600)
    return file
