"""Files with personal data, and folders for them: only the user who writes them can read them."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_ROOT = 0


def own_folder(folder: Path) -> None:
    """Make ``folder`` and missing folders above it, closed to others; existing folders keep their mode.

    Raises `OSError`, also where others could put files of their own in the place of ours: where ``folder`` is another
    user's, or everybody may write there. Of root, any folder is taken: clusters make volumes for a group or for all.
    Root takes what is mounted for it, if that is not for all.
    """
    missing = [each for each in folder.parents if not each.exists()]
    for each in (*reversed(missing), folder):
        each.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid == _ROOT:
        return
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(errno.EPERM, f"everybody may write there: chmod o-w {folder}, or name a folder within it")
    if os.geteuid() not in (found.st_uid, _ROOT):
        raise PermissionError(errno.EPERM, f"{folder} is of user {found.st_uid}, not yours; name a folder of your own")


def shared_file(file: Path) -> int:
    """Open ``file`` for reading and writing, made where it is missing, and for all processes of this user.

    Raises `OSError` where a link, or what is no plain file of this user's, stands there: somebody else put it there.
    """
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode) or os.geteuid() not in (found.st_uid, _ROOT):
        os.close(opened)
        raise PermissionError(errno.EPERM, f"{file} is no plain file of yours; delete it")
    return opened


def own_file(file: Path) -> BinaryIO:
    """Make ``file`` anew and open it for writing. Raises `OSError`.

    A former file is deleted, not opened: it may be somebody else's, or a link to another file.
    """
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
