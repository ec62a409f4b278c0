"""Requests a page of a worker or lag monitor with its token: ``probe.py /healthz``. Exit status 0 if it answers 200.

While the token's file is empty or gone, servers keep the former token: that one asks for it (401) then shows that it
lives, and not that it is ready.

For containers: Kubernetes' own HTTP probes cannot take a header from a secret. It uses only the standard library, since
it is started every few seconds.
"""

import http.client
import os
import sys
from pathlib import Path

TIMEOUT_S = 4.0
DEFAULT_PORT = "9309"


def main(path: str) -> int:
    """Return the exit status; the answer goes to stderr."""
    token, well = os.environ.get("SALIENCE_WEB_TOKEN", ""), {http.client.OK}
    if file := os.environ.get("SALIENCE_WEB_TOKEN_FILE"):
        token = _held(Path(file))
        well |= {http.client.UNAUTHORIZED} if not token and path == "/healthz" else set()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("SALIENCE_WEB_PORT", DEFAULT_PORT)), timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        sys.stderr.write(f"{response.status} {response.read(500).decode(errors='replace').strip()}\n")
    except OSError as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if response.status in well else 1


def _held(file: Path) -> str:
    """The token in its file; empty where there is none."""
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
