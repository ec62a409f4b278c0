"""Finds Java 17 and Maven, or says how to get them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.brokers import BrokerUnavailableError

NEEDED = 17
"""Apache Kafka 4's brokers need Java 17."""

INSTALL = (
    "Install a JDK 17: apt-get install openjdk-17-jre-headless maven (macOS: brew install openjdk@17 maven),"
    " or use the embedded broker: salience broker embedded up (SALIENCE_GUARANTEE=at_least_once)."
)


def java_command() -> str:
    """Path of a Java of version 17 or newer: ``JAVA_HOME``'s, else the first on ``PATH``."""
    home = os.environ.get("JAVA_HOME")
    inside = Path(home) / "bin" / "java" if home else None
    java = str(inside) if inside and inside.exists() else shutil.which("java")
    if java is None:
        raise BrokerUnavailableError(f"Apache Kafka needs Java {NEEDED} or newer, and no `java` is found. {INSTALL}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = java_major(said.stderr + said.stdout)
    if found is None or found < NEEDED:
        raise BrokerUnavailableError(
            f"Apache Kafka needs Java {NEEDED} or newer; {java} is {found or 'of unknown version'}. {INSTALL}"
        )
    return java


def java_major(said: str) -> int | None:
    """The major version in what ``java -version`` says: 17 of ``"17.0.15"``, 8 of ``"1.8.0_392"``."""
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else None


def maven_command() -> str:
    """Path of ``mvn``."""
    found = shutil.which("mvn")
    if found is None:
        raise BrokerUnavailableError(f"Apache Kafka's jars come by Maven, and no `mvn` is found. {INSTALL}")
    return found
