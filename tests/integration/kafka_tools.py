"""Apache Kafka's own tools, run from the jars that its broker comes from."""

import subprocess
from pathlib import Path

from deploy.brokers.jars import default_cache, fetch
from deploy.brokers.java import java_command

GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
"""What ``kafka-consumer-groups.sh`` starts."""
ANSWER_S = 60.0

Offsets = tuple[int | None, int | None, int | None]


def consumer_groups(bootstrap: str, group: str) -> dict[tuple[str, int], Offsets]:
    """Committed offset, log end and lag of each partition, as ``kafka-consumer-groups.sh --describe`` tells them."""
    classpath = f"{fetch(default_cache(), print)}/*"
    log4j = Path(__file__).parents[2] / "deploy" / "brokers" / "log4j2.properties"
    options = [f"-Dlog4j2.configurationFile={log4j}", "-Dsalience.log=/dev/null", "-XX:TieredStopAtLevel=1"]
    command = [java_command(), *options, "-cp", classpath, GROUPS]
    command += ["--bootstrap-server", bootstrap, "--describe", "--group", group]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    header = next(line for line in lines if line[0] == "GROUP")
    places = [header.index(name) for name in ("CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")]
    found: dict[tuple[str, int], Offsets] = {}
    for line in lines:
        if line[0] == group:
            committed, end, lag = (None if line[place] == "-" else int(line[place]) for place in places)
            found[line[1], int(line[2])] = committed, end, lag
    return found
