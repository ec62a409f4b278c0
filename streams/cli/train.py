"""``salience train``: make a model from a log, and say how good it is on the log's last fifth."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from onnx_models.examples import Examples, Items
    from onnx_models.metrics import Metrics
    from onnx_models.training import Config, Step
    from scoring.attention import AttentionModel
    from streams.logs import Event
    from streams.wire import Ad

app = typer.Typer(help="Make a model from a log (needs PyTorch: the extra train).", no_args_is_help=True)

SeedOption = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same model on one machine.")]
OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the model; made where missing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]
DataOption = Annotated[Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of the log's files.")]
UsersOption = Annotated[int, typer.Option("--users", min=2, help="Simulated shoppers.")]
HoursOption = Annotated[float, typer.Option("--hours", min=1, help="Simulated hours.")]

TRAIN_SHARE = 0.8
"""Of the log, by time; the rest only measures."""
KUAIRAND: dict[str, Any] = {"vocabulary": 65_536, "epochs": 3, "rate": 3e-3}
"""What differs from the demo shop's configuration: thousands of items and authors, of each few impressions, so that a
second look at the log is one too many. Chosen on the validation part."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be made, where to, and how to say so."""

    name: str
    data: str
    config: "Config"
    out: Path
    console: Console
    as_json: bool


@app.command(epilog="Example: salience train demo --out models/demo && salience worker --model models/demo")
def demo(
    seed: SeedOption = 1,
    users: UsersOption = 400,
    hours: HoursOption = 72,
    out: OutOption = Path("models/demo"),
    as_json: JsonOption = False,
) -> None:
    """Make the demo shop's model again from nothing: simulate a log, learn from it, export."""
    _require_torch()
    from onnx_models.training import Config
    from streams.demo.shop import simulate_log

    console = Console(stderr=as_json, highlight=False)
    with console.status(f"Simulating {users} shoppers for {hours:g} hours"):
        log = simulate_log(seed, users, hours)
    data = f"demo shop: seed {seed}, {users} shoppers, {hours:g} hours"
    _make(_Order("demo", data, Config(seed=seed), out, console, as_json), log.ads, log.events)


@app.command(epilog="Example: salience train kuairand --data ./kuairand --out models/kuairand")
def kuairand(
    data: DataOption,
    seed: SeedOption = 1,
    out: OutOption = Path("models/kuairand"),
    as_json: JsonOption = False,
) -> None:
    """Learn from KuaiRand-Pure (see streams/logs/kuairand.py for the files)."""
    _require_torch()
    from onnx_models.training import Config
    from streams.logs import LogError
    from streams.logs.kuairand import read

    console = Console(stderr=as_json, highlight=False)
    try:
        log = read(data)
    except LogError as error:
        _fail(str(error), as_json)
    config = replace(Config(seed=seed), **KUAIRAND)
    _make(_Order("kuairand", "KuaiRand-Pure", config, out, console, as_json), log.ads, log.events)


def _require_torch() -> None:
    if find_spec("torch") is None or find_spec("onnx") is None:
        _fail("PyTorch is not installed, and training needs it. To install it: pip install 'salience[train]'", False)


def _fail(message: str, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": message}))
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"Error: {message}")
    raise typer.Exit(1)


def _make(order: _Order, ads: "Sequence[Ad]", events: "Sequence[Event]") -> None:
    """Collect, train, measure, export, load what was written, report."""
    from onnx_models.baselines import baselines
    from onnx_models.export import About, export
    from onnx_models.training import evaluate, train
    from scoring.attention import load

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=order.console) as progress:
        examples, items = _collect(ads, events, progress)
        learn, test = examples.time_split(TRAIN_SHARE)
        try:
            result = train(learn, items, order.config, _shown_in(progress, order.config))
        except ValueError as error:
            _fail(str(error), order.as_json)
        metrics = {"test": evaluate(result.network, test, items), **baselines(learn, test)}
    about = About(
        name=order.name,
        data=order.data,
        data_from_ms=int(learn.time_ms[0]),
        data_to_ms=int(learn.time_ms[-1]),
        metrics={name: value for part, found in metrics.items() for name, value in found.named(f"{part}_").items()}
        | {"examples": len(learn), "test_examples": len(test)},
        git_revision=_git_revision(),
    )
    export(result.network, order.out, about)
    _report(order, load(order.out), metrics, len(learn), len(test))


def _collect(ads: "Sequence[Ad]", events: "Sequence[Event]", progress: Progress) -> "tuple[Examples, Items]":
    """A log's examples, by the code that serves."""
    from onnx_models.examples import Items, collect
    from scoring.catalogue import Catalogue
    from scoring.rows import RowStore
    from streams.catalogue_feed import entry_of
    from streams.decode import columns

    store, catalogue = RowStore(), Catalogue()
    catalogue.upsert([entry_of(ad) for ad in ads])
    rows = [store.row_of(event.user_id.encode()) for event in events]
    task = progress.add_task("Applying events", total=len(events))
    examples = collect(columns(events, rows), store, catalogue, lambda done, _: progress.update(task, completed=done))
    return examples, Items.of(catalogue)


def _shown_in(progress: Progress, config: "Config") -> "Callable[[Step], None]":
    """A bar over all steps that tells the latest validation."""
    task = progress.add_task("Learning", total=None)

    def show(step: "Step") -> None:
        reached = f", validation AUC {step.validation.auc:.4f}" if step.validation else ""
        progress.update(
            task,
            description=f"Learning, epoch {step.epoch + 1} of at most {config.epochs}{reached}",
            completed=step.epoch * step.batches + step.batch,
            total=config.epochs * step.batches,
        )

    return show


def _git_revision() -> str:
    """The revision of this code, with "-dirty" where files differ from it; "" outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()


def _report(order: _Order, model: "AttentionModel", metrics: "dict[str, Metrics]", learnt: int, tested: int) -> None:
    if order.as_json:
        found = {name: value.named("") for name, value in metrics.items()}
        report = {"model": model.version, "directory": str(order.out), "examples": learnt, "test_examples": tested}
        typer.echo(json.dumps(report | found))
    table = Table("predicted by", "AUC", "log loss", "calibration", title=f"The last fifth: {tested:,} impressions")
    for name, value in metrics.items():
        label = "the model" if name == "test" else name
        table.add_row(label, f"{value.auc:.4f}", f"{value.log_loss:.5f}", f"{value.calibration:.3f}")
    order.console.print(table)
    order.console.print(f"{model.version}, learnt from {learnt:,} impressions, is in {order.out}")
