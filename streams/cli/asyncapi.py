"""``salience asyncapi``: the topics described for other teams and their tools."""

import typer


def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of all topics: what they carry, their keys, headers and configs.

    Example: salience asyncapi > deploy/asyncapi.json
    """
    from streams.asyncapi import render

    typer.echo(render(), nl=False)
