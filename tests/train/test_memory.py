"""What a log takes in memory while it is learnt from: its messages take more than all that is made of them."""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.demo.shop import simulate_log
from streams.logs import Log
from streams.logs.kuairand import IMPRESSIONS
from streams.wire import Click, Impression

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")

if TYPE_CHECKING:
    from onnx_models.trial import Trial

pytestmark = pytest.mark.train


class Events(list[Impression | Click]):
    """A list that tells by a weak reference when nobody holds it any more."""


@pytest.mark.parametrize("does", ["train", "evaluate"])
@pytest.mark.parametrize("what", ["log", "kuairand", "demo"])
def test_the_messages_of_a_log_are_gone_once_they_are_columns(
    does: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Events]] = []

    def read(*_: object, **__: object) -> Log:
        log = simulate_log(1, 12, 12)
        events = Events(log.events)
        held.append(weakref.ref(events))
        return Log(log.ads, events)

    def prepare(*_: object, **__: object) -> "Trial":
        (events,) = held
        raise ValueError("they are gone" if events() is None else "they are held")

    (tmp_path / IMPRESSIONS).touch()
    for name in ("streams.logs.parquet.read", "streams.logs.kuairand.read", "streams.demo.shop.simulate_log"):
        monkeypatch.setattr(name, read)
    monkeypatch.setattr("streams.logs.kuairand.times_ms", lambda _file: [0])
    monkeypatch.setattr("onnx_models.trial.prepare", prepare)
    source = [] if what == "demo" else ["--data", str(tmp_path)]
    out = ["--out", str(tmp_path / "model")] if does == "train" else []

    told = CliRunner().invoke(app, [does, what, *source, *out])

    assert (told.exit_code, "they are gone" in told.stderr) == (1, True), told.output
