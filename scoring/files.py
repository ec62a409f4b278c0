"""Files of strangers, as those of a model are: read within bounds, or not at all."""

from importlib.resources.abc import Traversable


def read_at_most(file: Traversable, bytes_max: int) -> bytes:
    """All of ``file``. Raises `OSError` where it is no file, before it is opened, or has more than ``bytes_max``.

    To open a pipe waits for whoever writes to it, and a device has no end.
    """
    if not file.is_file():
        raise FileNotFoundError("it is missing, or is a folder, pipe or device")
    with file.open("rb") as opened:
        content = opened.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(f"it has more than {bytes_max:,} bytes")
    return content
