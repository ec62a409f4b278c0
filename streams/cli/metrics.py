"""``salience metrics``: what workers and the lag monitor export."""

import sys


def metrics() -> None:
    """Print every metric with its type, labels and meaning, as Markdown.

    Example: salience metrics > deploy/METRICS.md
    """
    from streams.metrics_table import table

    sys.stdout.write(table())
