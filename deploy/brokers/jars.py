"""Apache Kafka's jars, fetched once by Maven into a cache that every run shares."""

import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from deploy.brokers import BrokerUnavailableError
from deploy.brokers.java import maven_command

GOAL = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
"""Its version is pinned in the pom."""

POM = Path(__file__).with_name("pom.xml")

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

ELSEWHERE = (
    "Name a folder of yours in XDG_CACHE_HOME,"
    " or use the embedded broker: salience broker embedded up (SALIENCE_GUARANTEE=at_least_once)."
)

FETCH_S = 900.0
"""43 MB and Maven's own plugins: seconds on a fast line, minutes on a slow one."""


def kafka_version() -> str:
    """The version that ``pom.xml`` pins."""
    match = re.search(r"<kafka\.version>(.+)</kafka\.version>", POM.read_text())
    assert match, f"{POM} names no kafka.version"
    return match[1]


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/salience``, or ``~/.cache/salience``.

    Raises ``BrokerUnavailableError`` for a user without a home, as in containers that run as any number.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "salience"
    except RuntimeError as error:
        raise BrokerUnavailableError(f"This user has no home for Apache Kafka's jars. {ELSEWHERE}") from error


def fetch(cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of jars; it is fetched if missing.

    Its name depends on ``pom.xml``, so another version or another artifact is fetched anew. It appears whole,
    by a rename: parallel runs fetch twice at worst.
    Raises ``BrokerUnavailableError`` where Maven cannot fetch them, or the cache takes none.
    """
    jars = cache / f"jars-{kafka_version()}-{zlib.crc32(POM.read_bytes()):08x}"
    if jars.is_dir():
        return jars
    maven = maven_command()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        being_fetched = tempfile.TemporaryDirectory(prefix="fetching-", dir=cache)
    except OSError as error:
        why = error.strerror or error
        raise BrokerUnavailableError(f"{cache} takes no jars of Apache Kafka ({why}). {ELSEWHERE}") from error
    say(f"Fetching Apache Kafka {kafka_version()} by Maven into {jars} (43 MB, once) ...")
    with being_fetched as scratch:
        fetched = Path(scratch) / "jars"
        _copy_dependencies(maven, Path(scratch), fetched)
        try:
            fetched.rename(jars)
        except OSError:
            if not jars.is_dir():
                raise
    return jars


def class_archive(jars: Path, java: str) -> Path:
    """Where formats leave the classes that they loaded, for this Java to share (class data sharing).

    Java leaves aside an archive of other jars or of another Java, which is of no use to it. A torn one ends it.
    """
    program = Path(java).resolve()
    return jars / f"classes-{zlib.crc32(f'{program} {program.stat().st_mtime_ns}'.encode()):08x}.jsa"


def _copy_dependencies(maven: str, scratch: Path, into: Path) -> None:
    shutil.copy(POM, scratch / "pom.xml")  # the package's own folder may be read-only
    log = scratch / "maven.log"
    # Without strict checksums, Maven accepts a jar with a wrong checksum, with only a warning.
    command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", GOAL]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    with log.open("wb") as output:
        try:
            done = subprocess.run(command, cwd=scratch, stdout=output, stderr=output, timeout=FETCH_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailableError(f"Maven fetched no jars in {FETCH_S:.0f} s:\n{_log_head(log)}") from error
    if done.returncode != 0 or not list(into.glob("kafka_2.13-*.jar")):
        raise BrokerUnavailableError(
            f"Maven could not fetch Apache Kafka {kafka_version()}, exit code {done.returncode}:\n"
            f"{_log_head(log)}\n"
            "Check that this machine reaches a Maven repository,"
            " or use the embedded broker: salience broker embedded up (SALIENCE_GUARANTEE=at_least_once)."
        )


def _log_head(log: Path) -> str:
    """The first lines tell the cause; the rest is advice. Maven colours some even where colour is off."""
    return "\n".join(COLOUR.sub("", log.read_text(errors="replace")).splitlines()[:5])
