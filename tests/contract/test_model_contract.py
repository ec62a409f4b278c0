"""A model that keeps the contract can be dropped in; any other is refused, with reason, expectation and command."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from scoring.attention import GOLDEN_TOLERANCE, AttentionModel, load
from scoring.catalogue import Catalogue
from scoring.gathering import gather
from scoring.inputs import CONTEXT_DIM, REVIEWED, SPEC_HASH, ModelInputs
from scoring.manifest import ATTENTION, ENCODER, MANIFEST, MANIFEST_BYTES_MAX, ModelError
from scoring.rows import RowStore
from scoring.tones import told
from scoring.update import apply
from streams.demo.catalogue import catalogue
from streams.demo.shop import SHOP
from streams.feeds.catalogue import entry_of
from streams.wire import Ad
from tests.builders import START_MS, columns_of, made_up_log
from tests.models import DIM, drawn_inputs, toy_model


@pytest.fixture(scope="module")
def demo() -> AttentionModel:
    return load()


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load(directory)
    message = str(refused.value)
    assert "; expected " in message
    assert "salience " in message.rsplit(";", 1)[1], "the fix names a command"
    return message


def test_a_model_of_anyones_that_keeps_the_contract_is_taken(tmp_path: Path) -> None:
    model = load(toy_model(tmp_path))
    inputs = drawn_inputs(np.random.default_rng(5), 2, 3, DIM)
    logit, attention = model.score(inputs)
    np.testing.assert_allclose(logit, inputs.candidates.sum(axis=2), atol=1e-6)
    assert attention.shape == (2, 3, inputs.history.shape[1])
    assert model.dim == DIM


def of_the_shop(demo: AttentionModel, ads: list[Ad]) -> ModelInputs:
    """What ``demo`` is told of all ``ads`` for each of 50 people."""
    shop = Catalogue(demo.encode, demo.dim)
    shop.upsert([entry_of(ad) for ad in ads])
    store = RowStore()
    apply(store, columns_of(store, made_up_log(1, events=500, users=50).events), shop)
    rows, everything = store.rows[:50], np.broadcast_to(np.arange(len(shop)), (50, len(shop)))
    inputs, _ = gather(shop, rows, rows["time_ms"], everything, rows["surface"])
    return inputs


def test_the_demos_model_predicts_as_many_clicks_of_an_ad_whatever_its_age_and_where_it_tells_none(
    demo: AttentionModel,
) -> None:
    """The means over all of the shop's ads, each of one age."""
    day_ms, chances = 86_400_000, []
    for age_days in (0, 1, 7, 30, 365, 3 * 365, None):
        start_ms = 0 if age_days is None else START_MS - age_days * day_ms
        ads = [msgspec.structs.replace(ad, start_ms=start_ms) for ad in catalogue(SHOP)]
        odds, _ = demo.score(of_the_shop(demo, ads))
        chances.append(float((1 / (1 + np.exp(-odds))).mean()))
    assert max(chances) < 1.15 * min(chances)


def test_the_demos_model_thinks_better_of_what_is_reviewed_better_and_no_flood_of_reviews_outweighs_the_rest(
    demo: AttentionModel,
) -> None:
    """The shop's ads, for 50 people in one placement each; as deploy/OPERATIONS.md says."""
    inputs, odds = of_the_shop(demo, catalogue(SHOP)), []
    for good in (0.0, 0.75, 1.0):  # of a hundred, where three quarters are good
        inputs.candidate_stats[:, :, REVIEWED:] = told(np.array([[100.0, good]]), 0.75)
        odds.append(demo.score(inputs)[0])
    bad, usual, best = odds
    assert (bad < usual).all()
    assert (usual < best).all()
    share = np.exp([(best - usual).mean(), (bad - usual).mean()])
    assert share == pytest.approx([1.25, 0.5], abs=0.1)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert f"{MANIFEST} cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": "one"}', '{"x":' + 5_000 * "["])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    toy_model(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    assert "the fields of a manifest" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": 2}, "manifest format 2; expected format 1"),
        ({"spec_hash": "0" * 16}, f"specification {'0' * 16}; expected {SPEC_HASH}"),
        ({"dim": 0}, "dim 0"),
        ({"vocabulary": 1}, "vocabulary 1"),
        ({"dim": DIM + 1}, f"tensor(float) ['vector0', {DIM}]; expected tensor(float) ['any', {DIM + 1}]"),
        ({"vocabulary": 49}, "outputs differ"),
        ({"vocabulary": 500}, "do not run"),
        ({"golden": "other.npz"}, "names no other.npz"),
        ({"files": {}}, f"names no {ATTENTION}, golden.npz, {ENCODER}"),
    ],
)
def test_a_manifest_that_says_what_does_not_fit_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    toy_model(tmp_path, manifest=lambda manifest: manifest.update(fields))
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../escape.onnx", "/etc/hostname", "sub/file", "..", ".", "", "a\\b", "c:x", "nul\0"])
def test_a_file_name_that_leads_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "escape.onnx").write_bytes(b"outside")
    directory = toy_model(tmp_path / "model", manifest=lambda manifest: manifest["files"].update({name: "0" * 64}))
    assert "a plain name inside the directory" in refusal(directory)


@pytest.mark.parametrize("name", [ENCODER, ATTENTION, "golden.npz"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    (toy_model(tmp_path) / name).unlink()
    assert f"{name} cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, ENCODER, ATTENTION, "golden.npz"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_pipe_a_device_or_a_folder_in_place_of_a_file_is_refused_without_reading_it(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    file = toy_model(tmp_path) / name
    file.unlink()
    make(file)
    message = refusal(tmp_path)
    assert name in message
    assert "is a folder, pipe or device" in message


def test_a_manifest_that_is_too_large_is_refused_by_its_size(tmp_path: Path) -> None:
    file = toy_model(tmp_path) / MANIFEST
    with file.open("ab") as manifest:
        manifest.write(b" " * MANIFEST_BYTES_MAX)
    assert f"it has more than {MANIFEST_BYTES_MAX:,} bytes" in refusal(tmp_path)


@pytest.mark.parametrize("name", [ENCODER, ATTENTION, "golden.npz"])
def test_a_file_with_one_byte_changed_is_refused(tmp_path: Path, name: str) -> None:
    file = toy_model(tmp_path) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert f"{name} has the sha256" in refusal(tmp_path)


def test_a_file_that_is_larger_than_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_model(tmp_path)
    monkeypatch.setattr("scoring.manifest.FILE_BYTES_MAX", 100)
    assert "has more than 100 bytes" in refusal(tmp_path)


def _named(side: Any, name: str) -> Any:
    return next(each for each in side if each.name == name)


def _rename_input(graph: Any) -> None:
    _named(graph.input, "context").name = "contexts"


def _rename_output(graph: Any) -> None:
    _named(graph.output, "logit").name = "score"
    graph.node[0].output[0] = "score"


def _forget_input(graph: Any) -> None:
    graph.input.remove(_named(graph.input, "interest"))


def _add_input(graph: Any) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("weather", onnx.TensorProto.FLOAT, ["people"]))


def _change_type(graph: Any) -> None:
    _named(graph.input, "history_kind").type.tensor_type.elem_type = onnx.TensorProto.INT32


def _drop_rank(graph: Any) -> None:
    del _named(graph.input, "interest").type.tensor_type.shape.dim[1]


def _shorten_history(graph: Any) -> None:
    _named(graph.input, "history_mask").type.tensor_type.shape.dim[1].dim_value = 49


def _fix_people(graph: Any) -> None:
    _named(graph.input, "context").type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rename_input, "has inputs ['candidate_features'"),
        (_rename_output, "has outputs ['attention', 'score']; expected ['attention', 'logit']"),
        (_forget_input, "has inputs ['candidate_features'"),
        (_add_input, "'weather']"),
        (_change_type, "input history_kind: tensor(int32)"),
        (_drop_rank, "input interest: tensor(float) ['interest0']; expected tensor(float) ['any', 64]"),
        (_shorten_history, "input history_mask: tensor(float) ['history_mask0', 49]; expected tensor(float)"),
        (_fix_people, f"input context: tensor(float) [1, {CONTEXT_DIM}]; expected tensor(float) ['any', "),
    ],
)
def test_a_graph_with_other_inputs_or_outputs_is_refused(
    tmp_path: Path, change: Callable[[Any], None], reason: str
) -> None:
    message = refusal(toy_model(tmp_path, graphs=lambda graphs: change(graphs[ATTENTION].graph)))
    assert ATTENTION in message
    assert reason in message


def _cut_person(golden: dict[str, Any]) -> None:
    golden["context"] = golden["context"][:-1, :-1]


def _no_people(golden: dict[str, Any]) -> None:
    for name in golden.keys() - {"tokens", "dense", "vector"}:
        golden[name] = golden[name][:0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda golden: golden.pop("logit"), "golden.npz lacks ['logit']"),
        (lambda golden: golden.update(tokens=golden["tokens"].astype(np.int64)), "tokens int64"),
        (lambda golden: golden.update(logit=np.array([object()])), "golden.npz cannot be read"),
        (lambda golden: golden.update(attention=golden["attention"][:, :-1]), "attention has shape (3, 5, 50)"),
        (_cut_person, "the graphs do not run"),
        (_no_people, "logit has shape (0, 5)"),
    ],
)
def test_golden_tensors_that_check_nothing_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    assert reason in refusal(toy_model(tmp_path, golden=change))


@pytest.mark.parametrize("output", ["vector", "logit", "attention"])
@pytest.mark.parametrize("amount", [2 * GOLDEN_TOLERANCE, -2 * GOLDEN_TOLERANCE, np.nan, np.inf])
def test_outputs_that_differ_from_the_golden_ones_are_refused(tmp_path: Path, output: str, amount: float) -> None:
    def change(golden: dict[str, Any]) -> None:
        golden[output].flat[-1] += amount

    assert "outputs differ from the golden ones by" in refusal(toy_model(tmp_path, golden=change))


@pytest.mark.parametrize("output", ["vector", "logit", "attention"])
def test_outputs_within_rounding_of_the_golden_ones_are_taken(tmp_path: Path, output: str) -> None:
    def change(golden: dict[str, Any]) -> None:
        golden[output].flat[-1] += GOLDEN_TOLERANCE / 2

    assert load(toy_model(tmp_path, golden=change)).version.startswith("toy-")


def test_outputs_that_are_not_finite_are_refused_even_where_the_golden_ones_are_not_either(tmp_path: Path) -> None:
    def poison(golden: dict[str, Any]) -> None:
        golden["candidates"][0, 0, 0] = np.nan
        golden["logit"][0, 0] = np.nan
        golden["attention"][0, 0] = np.nan

    assert "differ from the golden ones by nan" in refusal(toy_model(tmp_path, golden=poison))


def test_fields_of_a_later_manifest_are_ignored(tmp_path: Path) -> None:
    file = toy_model(tmp_path) / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"licence": "free"}))
    assert load(tmp_path).dim == DIM


def part(inputs: ModelInputs, people: slice, candidates: slice = slice(None)) -> ModelInputs:
    feed = {
        name: array[people, candidates] if name.startswith("candidate") else array[people]
        for name, array in inputs.feed().items()
    }
    return ModelInputs(**feed)


def test_a_person_is_scored_alike_alone_and_in_company_to_the_last_bit(demo: AttentionModel) -> None:
    inputs = drawn_inputs(np.random.default_rng(2), 32, 50, demo.dim)
    logit, attention = demo.score(inputs)
    for person in range(32):
        alone, alone_attention = demo.score(part(inputs, slice(person, person + 1)))
        np.testing.assert_array_equal(alone[0], logit[person])
        np.testing.assert_array_equal(alone_attention[0], attention[person])


@pytest.mark.parametrize("count", [1, 2, 3, 17, 49])
def test_a_candidate_is_scored_alike_whoever_else_competes_up_to_rounding(demo: AttentionModel, count: int) -> None:
    inputs = drawn_inputs(np.random.default_rng(3), 4, 50, demo.dim)
    logit, attention = demo.score(inputs)
    fewer, fewer_attention = demo.score(part(inputs, slice(None), slice(count)))
    # Bound, not equality: a single candidate takes another kernel, whose sums run in another order.
    np.testing.assert_allclose(fewer, logit[:, :count], atol=2e-6)
    np.testing.assert_allclose(fewer_attention, attention[:, :count], atol=1e-6)


def test_an_empty_history_gets_exactly_no_attention_and_a_finite_score(demo: AttentionModel) -> None:
    logit, attention = demo.score(drawn_inputs(np.random.default_rng(4), 3, 9, demo.dim))
    assert not attention[0].any()
    assert np.isfinite(logit).all()


def test_attention_is_a_share_and_padding_gets_none(demo: AttentionModel) -> None:
    inputs = drawn_inputs(np.random.default_rng(6), 20, 9, demo.dim)
    _, attention = demo.score(inputs)
    assert (attention >= 0).all()
    assert (attention.sum(axis=2) <= 1 + 1e-5).all()
    padded = inputs.history_mask[:, None, :] == 0
    assert not attention[np.broadcast_to(padded, attention.shape)].any()
    assert attention[1:].any()


def test_the_packaged_model_is_small_and_says_where_it_comes_from(demo: AttentionModel) -> None:
    assert demo.version.startswith("demo-")
    assert demo.manifest.data
    assert {"test_auc", "test_log_loss"} <= demo.manifest.metrics.keys()
