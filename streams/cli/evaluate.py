"""``salience evaluate``: compare the attention model with its alternatives, on a log's later part."""

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from streams.cli.contestants import CHOSEN, ModelsOption, contestants
from streams.cli.evaluated import Beside, report
from streams.cli.failing import fail
from streams.cli.options import Hours, Json, LogFolder, Users, answer
from streams.cli.screen import Table, bars, screen

if TYPE_CHECKING:
    from onnx_models.comparison import Outcome
    from onnx_models.trial import Trial

Told = Callable[[int, int], None]
"""Called with events done and events in all."""

app = typer.Typer(help="Compare models on a log.", no_args_is_help=True)

TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test",
        exists=True,
        dir_okay=False,
        help="A later file of impressions to test on; then all of --data trains. Not with --train-share.",
    ),
]
ShareOption = Annotated[
    float | None,
    typer.Option(
        "--train-share",
        min=0.05,
        max=0.95,
        help="Share of the log's time, from the first impression on, that trains; the rest tests.",
        show_default="0.8",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Random seed of the networks, the trees and the bootstrap.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Models to fit at once, one processor each.")]
LanesOption = Annotated[
    int,
    typer.Option(
        "--lanes",
        min=1,
        max=64,
        help="Lanes whose click layers are compared with one layer; 1: none.",
    ),
]
TextOption = Annotated[
    bool, typer.Option("--text", help="Add vectors of titles to items (extra text); the model no_text goes without.")
]
NEEDS = ("torch", "lightgbm", "sklearn")


@dataclass(frozen=True, slots=True)
class _Asked:
    """How to compare the models of a log."""

    models: str | None
    seed: int
    jobs: int
    lanes: int
    as_json: bool
    longer: str = "Give a longer log, or part it elsewhere"
    """What helps if the test part is too small."""


@app.command(epilog="Example: salience evaluate kuairand --data ./kuairand --models attention,gbdt,hashed_lr")
def kuairand(
    data: LogFolder,
    test: TestOption = None,
    train_share: ShareOption = None,
    models: ModelsOption = None,
    seed: SeedOption = 1,
    jobs: JobsOption = 2,
    lanes: LanesOption = 8,
    as_json: Json = False,
) -> None:
    """Train on the first 80 % of KuaiRand-Pure's time (or another share; or all, with --test), and test on the rest.

    Three modes: frozen (state as when the test begins), stateful (state follows
    the stream), online (with the click layer, as in a worker). gAUC and NDCG@10
    are per user, and for frozen state only: over a stream they are biased. 95 %
    intervals are paired, by users.

    Then follow: what state and click layer add as the model ages (up to five
    days with --train-share 0.2), drift drills, other ways for the layer to
    learn, and what it loses if a worker's lanes learn apart, and regains if they
    share. Needs the extras train and evaluate.
    """
    if test is not None and train_share is not None:
        raise typer.BadParameter(
            "--train-share parts --data, all of which trains where --test is given; give one of them"
        )
    _require()
    from streams.cli.trials import KUAIRAND, TRAIN_SHARE, kuairand_trial

    share = train_share or TRAIN_SHARE
    asked = _Asked(models, seed, jobs, lanes, as_json)
    if test is not None:
        asked = replace(asked, longer="Give a longer --test file")
    _compare(lambda told: kuairand_trial(data, test, told, share), KUAIRAND, asked)


@app.command(
    epilog="Example: salience export-log --out log && salience evaluate log --data log --models attention,gbdt"
)
def log(
    data: LogFolder,
    train_share: ShareOption = None,
    models: ModelsOption = None,
    text: TextOption = False,
    seed: SeedOption = 1,
    jobs: JobsOption = 2,
    lanes: LanesOption = 8,
    as_json: Json = False,
) -> None:
    """Train on the first 80 % of your own log's time (or another share), and test on the rest, like kuairand.

    The log is as salience export-log writes it. If it has reviews, a further
    model gets none of them; with --text, another gets no titles.
    """
    _require("pyarrow")
    from streams.cli.trials import TRAIN_SHARE, titles_of, trial_of
    from streams.logs.parquet import read

    titles = titles_of(wanted=text)

    def prepare(told: "Told") -> "Trial":
        return trial_of(read(data), told, titles=titles, share=train_share or TRAIN_SHARE)

    _compare(prepare, {}, _Asked(models, seed, jobs, lanes, as_json))


@app.command(epilog="Example: salience evaluate demo --models attention,mean_pooling,no_reviews,gbdt")
def demo(
    users: Users = 100,
    hours: Hours = 48,
    train_share: ShareOption = None,
    models: ModelsOption = None,
    text: TextOption = False,
    seed: SeedOption = 1,
    jobs: JobsOption = 2,
    lanes: LanesOption = 8,
    as_json: Json = False,
) -> None:
    """Compare like kuairand, on the demo's shoppers of known taste, drawn by --seed and shown random ads."""
    _require()
    from streams.cli.trials import TRAIN_SHARE, titles_of, trial_of
    from streams.demo.shop import simulate_log

    titles = titles_of(wanted=text)

    def prepare(told: "Told") -> "Trial":
        return trial_of(simulate_log(seed, users, hours), told, titles=titles, share=train_share or TRAIN_SHARE)

    _compare(prepare, {}, _Asked(models, seed, jobs, lanes, as_json))


def _compare(prepare: "Callable[[Told], Trial]", differs: dict[str, Any], asked: _Asked) -> None:
    """Fit all models on a log and report. ``differs``: changes to the networks' usual configuration."""
    from onnx_models.ageing import ages
    from onnx_models.cold import segments
    from onnx_models.comparison import compare, fit_all
    from onnx_models.learning import compare_learning
    from onnx_models.metrics import untold
    from onnx_models.sharing import compare_lanes
    from onnx_models.training import Config
    from onnx_models.trial import SplitError

    console, seed = screen(stderr=asked.as_json), asked.seed
    with bars(console) as progress:
        task = progress.add_task("Reading and applying events", total=None)

        def applied(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        try:
            trial = prepare(applied)
        except SplitError as error:
            fail(f"{error} Else part it elsewhere, with --train-share")
        except ValueError as error:
            fail(error)
        if why := untold(trial.stateful.label):
            fail(f"The test's {why}. {asked.longer}")
        models = contestants(trial, replace(Config(seed=seed), **differs), asked.models)
        fitting = progress.add_task("Fitting models", total=len(models))

        def told(outcome: "Outcome") -> None:
            progress.update(fitting, advance=1, description=f"Fitted {outcome.name} in {outcome.fit_s:.0f} s")

        with _fitting():
            outcomes = fit_all(models, trial, CHOSEN, asked.jobs, told)
        progress.add_task("Comparing them, what the layer adds and how it learns", total=None)  # minutes, of a week
        chances = outcomes[CHOSEN].chances
        beside = Beside(
            outcomes[CHOSEN].drills,
            segments(trial, chances),
            ages(trial.stateful, int(trial.learn.time_ms[-1]), chances, seed),
            compare_learning(trial, chances["stateful"], seed),
            compare_lanes(trial, chances["stateful"], asked.lanes, seed) if asked.lanes > 1 else [],
        )
        found = compare(trial, outcomes, CHOSEN, seed)
    report(trial, found, beside, console, asked.as_json)


@contextmanager
def _fitting() -> Iterator[None]:
    """Ends the command if a model cannot learn, or the process that fits it is killed."""
    try:
        yield
    except BrokenExecutor:
        fail(
            "a process that fits a model was killed: was it out of memory? Fit one model at once (--jobs 1), fewer of "
            "them (--models), or give a shorter log"
        )
    except ValueError as error:
        fail(error)


ArmsOption = Annotated[
    Path | None,
    typer.Option(
        "--test", exists=True, dir_okay=False, help="A later file of arms to test on; --data before it trains."
    ),
]
DrawsOption = Annotated[int, typer.Option("--seed", min=0, help="Random seed of the bootstrap.")]
ZOption = Annotated[float, typer.Option("--z-min", min=0.0, help="Test pairs whose |z| is this or more.")]
TRAIN_SHARE = 0.8
"""Share of a log's tests, by week, that trains; the later weeks test."""


@app.command(epilog="Example: salience evaluate headlines --data ./upworthy --json")
def headlines(
    data: LogFolder, test: ArmsOption = None, z_min: ZOption = 3.0, seed: DrawsOption = 1, as_json: Json = False
) -> None:
    """Predict which of two headlines is clicked more: by text vectors, plain figures, words, or "longer wins".

    Models learn from the weeks of the first 80 % of the Upworthy archive's
    tests; the latest of these weeks choose the penalty; the weeks after test.
    Pairs share a test and a picture; pairs with |z| ≥ 3 (or --z-min) test.
    Models learn from no headline of the test. 95 % intervals are a bootstrap
    over tests, if there are ten or more. Needs the extra text.
    """
    console = screen(stderr=as_json)
    try:
        with bars(console) as progress:
            report = _headlines(data, test, z_min, seed, progress)
    except ValueError as error:
        fail(error)
    if as_json:
        answer(report)
    console.print(report["split"])
    console.print(_accuracies(report["models"]))


def _accuracies(models: dict[str, Any]) -> Table:
    """Each model's accuracy; "–" where there are too few tests for an interval."""
    table = Table("model", "accuracy", "95 % interval", "above longer wins")
    for name, line in models.items():
        found, above = line["accuracy"], line["above_longer"]
        interval = ends = "–"
        if found["low"] is not None:
            interval = f"{found['low']:.3f} to {found['high']:.3f}"
            ends = f"{above['low']:+.3f}, {above['high']:+.3f}"
        gap = f"{above['value']:+.3f} [{ends}]" if name != "longer wins" else ""
        table.add_row(name, f"{found['value']:.3f}", interval, gap)
    return table


def _headlines(data: Path, later: Path | None, z_min: float, seed: int, progress: Progress) -> dict[str, Any]:
    import numpy as np

    from onnx_models.headlines import Duel, bag_of_words, compare, figures, split
    from scoring.text import TEXT_DIM, TEXT_ENCODER, text_encoder
    from streams.cli.trials import require_later
    from streams.logs.upworthy import FILE, joined, read

    pairs, test_from = read(data / FILE), None
    if later is not None:
        after = read(later)
        test_from = int(after.week.min())
        spans = f"{later} begins in week {test_from}, --data ends in {pairs.week.max()}"
        require_later(spans, int((pairs.week >= test_from).sum()), len(pairs), "pairs of headlines")
        pairs = joined(pairs.at(pairs.week < test_from), after)
    parts = split(Duel(pairs.one, pairs.other, pairs.test, pairs.z), pairs.week, TRAIN_SHARE, z_min, test_from)
    encoder, task = text_encoder(), progress.add_task("Encoding headlines", total=len(pairs.headlines))
    vectors = np.zeros((len(pairs.headlines), TEXT_DIM))
    for place, headline in enumerate(pairs.headlines):
        vectors[place] = encoder.encode([headline])[0]
        progress.advance(task)
    plain = figures(pairs.headlines)
    features = {
        "plain figures": plain,
        "bag of words": bag_of_words(pairs.headlines),
        "text vectors": vectors,
        "text vectors and plain figures": np.concatenate([vectors, plain], axis=1),
    }
    fitting = progress.add_task("Fitting", total=len(features))
    lines = compare(pairs.headlines, features, parts, seed, lambda _: progress.advance(fitting))
    tested, learnt = parts.test, len(parts.learn.z) + len(parts.validate.z)
    return {
        "split": (
            f"{len(tested.z):,} pairs of {len(np.unique(tested.test)):,} tests in weeks {parts.test_from_week} to "
            f"{pairs.week.max()} with |z| ≥ {z_min:g}; learnt from {learnt:,} pairs of the weeks before, the penalty "
            f"chosen on those from {parts.validate_from_week}"
        ),
        "pairs": len(tested.z),
        "tests": len(np.unique(tested.test)),
        "learnt": learnt,
        "test_from_week": parts.test_from_week,
        "validate_from_week": parts.validate_from_week,
        "z_min": z_min,
        "encoder": TEXT_ENCODER,
        "models": {
            name: {
                "accuracy": line.accuracy.named(),
                "above_longer": line.above_longer.named(),
                "penalty": line.penalty,
            }
            for name, line in lines.items()
        },
    }


def _require(*further: str) -> None:
    missing = [name for name in (*NEEDS, *further) if find_spec(name) is None]
    if missing:
        helps = "make setup-train in a clone, else pip install 'salience[train,evaluate]'"
        fail(f"{', '.join(missing)} missing, which evaluation needs: {helps}")
