"""``salience verify``: does a model give the same outputs here as where it was made?"""

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streams.cli.options import Json, answer, folder
from streams.cli.screen import Table, coloured, screen

if TYPE_CHECKING:
    from onnx_models.verify import Case
    from scoring.manifest import Manifest

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        parser=folder,
        metavar="<path>",
        help="Folder of a model's manifest.json; else the demo shop's model.",
    ),
]


def verify(model: ModelOption = None, as_json: Json = False) -> None:
    """Compare a model's graphs with its golden tensors and, where PyTorch is installed, with PyTorch.

    Exit status 1 if a difference is not below 1e-4, or the model breaks its
    contract.

    Example: salience verify --model ./my-model --json
    """
    from onnx_models import DEMO_MODEL
    from onnx_models.verify import verify as compare
    from scoring.attention import GOLDEN_TOLERANCE, golden_difference, open_unproven

    directory = model or DEMO_MODEL
    out = screen(stderr=as_json, soft_wrap=True)
    loaded, golden = open_unproven(directory)
    golden_difference(loaded, golden)  # checked here; the sizes are reported below, case by case
    cases = compare(loaded, golden, _pytorch(directory, loaded.manifest, out))
    largest = max(case.max_abs_diff for case in cases)
    passed = all(case.passed for case in cases)
    if as_json:
        answer(_as_object(loaded.version, cases))
    else:
        out.print(_table(loaded.version, cases))
    verdict = coloured("below", "green") if passed else coloured("not below", "red")
    out.print(
        f"Largest difference {largest:.2e},",
        verdict,
        f"{GOLDEN_TOLERANCE:g}, over {len(cases)} cases of {loaded.version}.",
    )
    if not passed:
        raise typer.Exit(1)


def _pytorch(directory: Path, manifest: "Manifest", out: Console) -> Callable[[str, Any], Any] | None:
    """The network in PyTorch with the graphs' weights; None, after printing why, if there is none."""
    if find_spec("torch") is None or find_spec("onnx") is None:
        helps = "make setup-train in a clone, else pip install 'salience[train]'"
        out.print(f"PyTorch is not installed: golden tensors only. To compare with it: {helps}")
        return None
    from onnx_models.export import restore, run

    try:
        return partial(run, restore(directory, manifest))
    except ValueError as error:
        out.print(f"Golden tensors only: {error}")
        return None


def _as_object(version: str, cases: "list[Case]") -> dict[str, Any]:
    """The result as JSON; a difference that is not finite is null, as JSON has no infinity."""
    largest = max(case.max_abs_diff for case in cases)
    return {
        "model": version,
        "max_abs_diff": largest if math.isfinite(largest) else None,
        "cases": len(cases),
        "against": list(dict.fromkeys(case.against for case in cases)),
    }


def _table(version: str, cases: "list[Case]") -> Table:
    table = Table("graph", "against", "items, or people × candidates", "largest difference", title=version)
    for case in cases:
        mark = coloured("") if case.passed else coloured(" above", "red")
        shape = " × ".join(map(str, case.shape))
        table.add_row(case.graph, case.against, shape, coloured(f"{case.max_abs_diff:.2e}").append_text(mark))
    return table
