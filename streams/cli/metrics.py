"""``salience metrics``: what workers and the lag monitor export."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.failing import fail

Dashboards = Annotated[
    Path | None, typer.Option(file_okay=False, exists=True, help="Write Grafana's dashboards into this folder instead.")
]


def metrics(dashboards: Dashboards = None) -> None:
    """Print every metric with its type, labels and meaning, as Markdown.

    Example: salience metrics > deploy/METRICS.md

    Example: salience metrics --dashboards deploy/grafana/dashboards
    """
    from streams.metrics import dashboards as grafana
    from streams.metrics.table import table

    if dashboards is None:
        typer.echo(table(), nl=False)
        return
    for name, text in grafana.dashboards().items():
        try:
            (dashboards / name).write_text(text)
        except OSError as error:
            fail(f"dashboards cannot be written: {dashboards / name}: {error.strerror}")
        sys.stderr.write(f"{dashboards / name}\n")
