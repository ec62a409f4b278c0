"""``salience train``: train a model on a log, and test it on the log's last fifth."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from streams.cli.failing import fail, writing
from streams.cli.options import Hours, Json, LogFolder, Users, a_folder
from streams.cli.screen import bars, screen
from streams.cli.trained import Found, describe, report

if TYPE_CHECKING:
    from onnx_models.examples import Examples
    from onnx_models.export import About
    from onnx_models.folds import Spread
    from onnx_models.metrics import Metrics
    from onnx_models.predicting import Ready, Said
    from onnx_models.training import Config, Step
    from onnx_models.trial import Trial

app = typer.Typer(help="Train a model on a log (needs PyTorch: the extra train).", no_args_is_help=True)

SeedOption = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same model on one machine.")]
OutOption = Annotated[
    Path, typer.Option("--out", parser=a_folder, metavar="<folder>", help="Folder for the model; created if missing.")
]


def _folds(count: int) -> int:
    if count == 1:
        raise typer.BadParameter("1 fold; expected 0 or 2 to 10: one tells of no spread")
    return count


FoldsOption = Annotated[
    int,
    typer.Option(
        "--folds",
        min=0,
        max=10,
        callback=_folds,
        help="Folds of cross-validation in time, 2 to 10; 0: none.",
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test", exists=True, dir_okay=False, help="A later file of impressions to test on; then all of --data trains."
    ),
]
A_FOLDER = "name a folder that is yours, on a disk with room"
A_CARD = "the model is there, what describes it is of before"
TextOption = Annotated[
    bool, typer.Option("--text", help="Add vectors of titles to items; workers then compute them too (extra text).")
]


@dataclass(frozen=True, slots=True)
class _Order:
    """Which model to make, where to write it, and how to report."""

    name: str
    data: str
    config: "Config"
    out: Path
    folds: int
    console: Console
    as_json: bool


@app.command(epilog="Example: salience train demo --out models/demo && salience worker --model models/demo")
def demo(
    seed: SeedOption = 1,
    users: Users = 400,
    hours: Hours = 72,
    out: OutOption = Path("models/demo"),
    folds: FoldsOption = 0,
    text: TextOption = False,
    as_json: Json = False,
) -> None:
    """Train the demo shop's model from scratch: simulate a log, learn from it, export."""
    _require(out)
    from onnx_models.training import Config
    from streams.cli.trials import titles_of, trial_of
    from streams.demo.shop import simulate_log

    console = screen(stderr=as_json)
    data = f"demo shop: seed {seed}, {users} shoppers, {hours:g} hours"
    order = _Order("demo", data, Config(seed=seed), out, folds, console, as_json)
    titles = titles_of(wanted=text)
    _make(order, lambda progress: trial_of(simulate_log(seed, users, hours), progress, titles=titles))


@app.command(epilog="Example: salience train kuairand --data ./kuairand --out models/kuairand")
def kuairand(
    data: LogFolder,
    test: TestOption = None,
    seed: SeedOption = 1,
    out: OutOption = Path("models/kuairand"),
    folds: FoldsOption = 0,
    as_json: Json = False,
) -> None:
    """Train on KuaiRand-Pure (files: see streams/logs/kuairand.py), its histories first."""
    _require(out)
    from onnx_models.training import Config
    from streams.cli.trials import KUAIRAND, kuairand_trial

    console = screen(stderr=as_json)
    config = replace(Config(seed=seed), **KUAIRAND)
    order = _Order("kuairand", "KuaiRand-Pure", config, out, folds, console, as_json)
    _make(order, lambda progress: kuairand_trial(data, test, progress))


@app.command(epilog="Example: salience export-log --out log && salience train log --data log --out models/own")
def log(
    data: LogFolder,
    seed: SeedOption = 1,
    out: OutOption = Path("models/own"),
    folds: FoldsOption = 0,
    text: TextOption = False,
    as_json: Json = False,
) -> None:
    """Train on your own log, as salience export-log writes it: Parquet files with the messages' fields."""
    _require(out, data)
    from onnx_models.training import Config
    from streams.cli.trials import titles_of, trial_of

    if find_spec("pyarrow") is None:
        fail("pyarrow is missing, which Parquet needs: pip install 'salience[evaluate]'")
    from streams.logs.parquet import read

    console = screen(stderr=as_json)
    order = _Order(out.resolve().name, _log_in(data), Config(seed=seed), out, folds, console, as_json)
    titles = titles_of(wanted=text)
    _make(order, lambda progress: trial_of(read(data), progress, titles=titles))


def _log_in(folder: Path) -> str:
    """A description of the log in ``folder``, which may be the current one."""
    return f"the log in {_name(folder)}"


def _name(folder: Path) -> str:
    """The last part of a folder's path as given; a link keeps its own name."""
    return os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119 - pathlib's would follow the link


def _require(out: Path, data: Path | None = None) -> None:
    """Check, before minutes of training, what it needs: PyTorch, and ``out`` to write to.

    The manifest, the card or the report name ``out``, and ``data`` where it is given.
    """
    if find_spec("torch") is None or find_spec("onnx") is None:
        fail(
            "PyTorch is missing, which training needs: make setup-train in a clone, else pip install 'salience[train]'"
        )
    with writing(out, A_FOLDER):
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        for folder in made:  # if the log turns out to be invalid, nothing is left behind
            folder.rmdir()
    for option, named in (("--out", out), ("--data", data)):
        if named is not None:
            _require_words(option, named)


def _require_words(option: str, folder: Path) -> None:
    """Check that a folder's name is UTF-8: on disk it may be any bytes, and files name it."""
    try:
        f"{folder}{_name(folder)}{folder.resolve().name}".encode()
    except UnicodeEncodeError:
        fail(f"{option} {str(folder)!a} has a name that is not UTF-8; give the folder another name")


def _make(order: _Order, prepare: "Callable[[Callable[[int, int], None]], Trial]") -> None:
    """Prepare, train, measure, export, describe, cross-validate, load what was written, report.

    The model and its card are written before folds are learnt, which take several times as long; then the card again.
    """
    from onnx_models.export import export
    from onnx_models.heads import heads
    from onnx_models.predicting import Ready
    from onnx_models.training import train
    from onnx_models.trial import Span
    from scoring.attention import load

    with bars(order.console) as progress:
        task = progress.add_task("Reading and applying events", total=None)
        try:
            trial = prepare(lambda done, total: progress.update(task, completed=done, total=total))
            before = trial.before if len(trial.before) else None
            result = train(trial.learn, trial.items, order.config, _shown_in(progress), before)
        except ValueError as error:
            fail(error)
        ready = Ready.of(result.network, trial.items)
        said = ready.say(trial.stateful)
        others = heads(said, trial.learn, trial.stateful)
        found = Found(Span.of(trial.before), _measured(trial, ready, said), others)
        with writing(order.out, A_FOLDER):
            manifest = export(result.network, order.out, _about(order, trial, found))
        with writing(order.out, A_CARD):
            describe(order.out, manifest, result, found)
        if order.folds:
            found = replace(found, across=_across(order, trial, progress))
    if found.across:
        with writing(order.out, A_CARD):
            describe(order.out, manifest, result, found)
    report(order.out, load(order.out), found, trial, order.console, order.as_json)


def _measured(trial: "Trial", ready: "Ready", said: "Said") -> "dict[str, Metrics]":
    """Metrics of the model (state that follows the stream, frozen state, no reviews) and of the baselines.

    ``said``: what the model says of the test part by state that follows the stream. If the test part cannot tell, this
    says so, and all metrics are `UNTOLD`.
    """
    from onnx_models.baselines import baselines
    from onnx_models.metrics import UNTOLD, measure, untold
    from onnx_models.predicting import chance

    found = {
        "test": measure(trial.stateful.label, chance(said.logit)),
        "frozen": ready.evaluate(trial.frozen),
        **(_of_reviews(trial, ready) if len(trial.said) else {}),
        **baselines(trial.learn, trial.stateful),
    }
    if why := untold(trial.stateful.label):
        screen(stderr=True).print(f"How good the model is, is not known: the test's {why}")
        return dict.fromkeys(found, UNTOLD)
    return found


def _of_reviews(trial: "Trial", ready: "Ready") -> "dict[str, Metrics]":
    """The model's metrics without reviews; and, as if all ads were new, with and without them."""
    from onnx_models.alternatives.nets import nameless, without_reviews
    from onnx_models.cold import unmet
    from onnx_models.predicting import Ready

    test, new = trial.stateful, Ready.of(ready.network, nameless(trial.items))
    return {
        "unreviewed": ready.evaluate(without_reviews(test)),
        "new": new.evaluate(unmet(test)),
        "new_unreviewed": new.evaluate(without_reviews(unmet(test))),
    }


def _across(order: _Order, trial: "Trial", progress: Progress) -> "dict[str, Spread]":
    """Cross-validate in time over the training part; empty if fewer than two folds can be tested."""
    from onnx_models.folds import folds, spread

    task = progress.add_task("Cross-validating", total=order.folds)
    found = []
    for number, (learn, test) in enumerate(folds(trial.learn, order.folds), 1):
        try:
            found.append(_fold(order, trial, learn, test))
        except ValueError as error:
            order.console.print(f"Fold {number} of {order.folds} is left out: {error}")
        progress.update(task, advance=1)
    return spread(found) if len(found) > 1 else {}


def _fold(order: _Order, trial: "Trial", learn: "Examples", test: "Examples") -> "Metrics":
    """The metrics on ``test`` of a model trained on ``learn``. Raises `ValueError` if either cannot tell."""
    from onnx_models.metrics import untold
    from onnx_models.predicting import evaluate
    from onnx_models.training import train

    if why := untold(test.label):
        raise ValueError(f"its test's {why}")
    before = trial.before if len(trial.before) else None
    return evaluate(train(learn, trial.items, order.config, None, before).network, test, trial.items)


def _about(order: _Order, trial: "Trial", found: Found) -> "About":
    from onnx_models.export import About

    learn = trial.learn
    told = {name: value for part, each in found.metrics.items() for name, value in each.named(f"{part}_").items()}
    told |= found.heads.named()
    return About(
        name=order.name,
        data=order.data,
        data_from_ms=int(learn.time_ms[0]),
        data_to_ms=int(learn.time_ms[-1]),
        metrics={name: value for name, value in told.items() if value is not None}
        | {"examples": len(learn), "before_examples": found.before.count, "test_examples": len(trial.stateful)},
        git_revision=_git_revision(),
    )


def _shown_in(progress: Progress) -> "Callable[[Step], None]":
    """Add a bar over all steps that shows the latest validation."""
    task = progress.add_task("Learning", total=None)

    def show(step: "Step") -> None:
        reached = f", validation AUC {step.validation.auc:.4f}" if step.validation else ""
        progress.update(
            task,
            description=f"{step.lesson}, epoch {step.epoch + 1} of at most {step.epochs}{reached}",
            completed=step.epoch * step.batches + step.batch,
            total=step.epochs * step.batches,
        )

    return show


def _git_revision() -> str:
    """The revision of this code, with "-dirty" where files differ from it; "" outside a clone.

    Installed within another project, this code lies in that project's repository, whose revision is not this code's.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*command: str) -> str:
        run = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True, timeout=10)
        return run.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return ""
