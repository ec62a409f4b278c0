"""The model's calls: what they take, what they give, and what they do to the process."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scoring.attention import AttentionModel, load, table_rows
from scoring.features import DENSE_DIM, TOKENS_MAX, Content, dense_features, token_ids
from scoring.inputs import ModelInputs, empty_inputs
from scoring.manifest import Manifest
from streams.demo.catalogue import catalogue as shop
from streams.feeds.catalogue import entry_of
from tests.models import VOCABULARY, drawn_inputs, drawn_tokens, toy_model


@pytest.fixture(scope="module")
def demo() -> AttentionModel:
    return load()


def test_a_hash_becomes_a_row_of_the_table_and_padding_stays_padding() -> None:
    hashes = np.array([[0, 1, 48, 49, 50, 2**64 - 1]], dtype=np.uint64)
    assert table_rows(hashes, 50).tolist() == [[0, 2, 49, 1, 2, 1 + (2**64 - 1) % 49]]


def test_no_token_takes_the_row_of_padding_nor_one_beyond_the_table() -> None:
    rows = table_rows(np.random.default_rng(0).integers(1, 2**63, 10_000).astype(np.uint64), VOCABULARY)
    assert rows.min() == 1
    assert rows.max() == VOCABULARY - 1


@pytest.mark.parametrize("together", [1, 2, 3, 7, 64, 299])
def test_encoding_gives_the_same_bits_for_an_item_whatever_else_is_encoded_with_it(
    demo: AttentionModel, together: int
) -> None:
    """A worker takes ads as they come, `explain` all at once; a receipt is to be computed again byte for byte."""
    tokens = drawn_tokens(np.random.default_rng(1), 300)
    dense = np.random.default_rng(2).random((300, DENSE_DIM), dtype=np.float32)
    whole = demo.encode(tokens, dense)
    assert whole.shape == (300, demo.dim)
    assert whole.dtype == np.float32
    parts = [slice(start, start + together) for start in range(0, 300, together)]
    np.testing.assert_array_equal(np.concatenate([demo.encode(tokens[of], dense[of]) for of in parts]), whole)


def test_the_order_and_place_of_tokens_do_not_matter_to_the_encoder(demo: AttentionModel) -> None:
    tokens = drawn_tokens(np.random.default_rng(3), 20)
    dense = np.zeros((20, DENSE_DIM), dtype=np.float32)
    np.testing.assert_allclose(demo.encode(tokens[:, ::-1].copy(), dense), demo.encode(tokens, dense), atol=1e-6)


def test_an_item_of_which_nothing_is_known_has_a_finite_vector(demo: AttentionModel) -> None:
    nothing = np.zeros((1, TOKENS_MAX), dtype=np.uint64)
    assert np.isfinite(demo.encode(nothing, np.zeros((1, DENSE_DIM), dtype=np.float32))).all()


def test_a_new_item_is_understood_by_its_content(demo: AttentionModel) -> None:
    """Items of the shop under ids that nobody has seen: what is nearest to each is of its category."""
    contents = [entry_of(ad).content for ad in shop(1)]
    known = vectors_of(demo, contents)
    new = vectors_of(demo, [replace(content, item_id=f"new-{content.item_id}") for content in contents])
    nearest = np.linalg.norm(new[:, None] - known[None], axis=2).argmin(axis=1)
    right = [contents[near].category == content.category for near, content in zip(nearest, contents, strict=True)]
    assert np.mean(right) > 0.75  # by chance: one in 36


def vectors_of(model: AttentionModel, contents: list[Content]) -> np.ndarray:
    tokens = np.stack([token_ids(content) for content in contents])
    return model.encode(tokens, np.stack([dense_features(content) for content in contents]))


def test_no_items_and_no_candidates_are_no_error(demo: AttentionModel) -> None:
    none = demo.encode(np.zeros((0, TOKENS_MAX), dtype=np.uint64), np.zeros((0, DENSE_DIM), dtype=np.float32))
    assert none.shape == (0, demo.dim)
    logit, attention = demo.score(empty_inputs(2, 0, demo.dim))
    assert logit.shape == (2, 0)
    assert attention.shape == (2, 0, 50)


def test_what_stands_in_masked_places_changes_nothing(demo: AttentionModel) -> None:
    inputs = drawn_inputs(np.random.default_rng(4), 6, 11, demo.dim)
    logit, attention = demo.score(inputs)
    masked = inputs.history_mask == 0
    inputs.history[masked] = 7
    inputs.history_age[masked] = 3
    inputs.history_kind[masked] = 4
    again, attention_again = demo.score(inputs)
    np.testing.assert_array_equal(again, logit)
    np.testing.assert_array_equal(attention_again, attention)


def test_a_score_depends_on_every_input(demo: AttentionModel) -> None:
    """A name mixed up in the export would leave an input without effect."""
    inputs = drawn_inputs(np.random.default_rng(5), 2, 3, demo.dim)
    inputs.history_mask[1] = 1
    logit, _ = demo.score(inputs)
    for name, array in inputs.feed().items():
        change = np.zeros_like(array) if name in {"history_mask", "history_kind"} else array + np.float32(0.5)
        changed, _ = demo.score(ModelInputs(**(inputs.feed() | {name: change})))
        assert np.abs(changed[1] - logit[1]).max() > 1e-6, name


def test_calls_from_many_threads_at_once_give_what_one_gives(demo: AttentionModel) -> None:
    calls = [drawn_inputs(np.random.default_rng(seed), 3, 40, demo.dim) for seed in range(16)]
    expected = [demo.score(inputs)[0] for inputs in calls]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda inputs: demo.score(inputs)[0], calls * 5))
    for got, wanted in zip(found, expected * 5, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in Linux's /proc")
def test_loading_and_scoring_start_no_threads() -> None:
    assert (
        run(
            "import os; from scoring.attention import load; from scoring.inputs import empty_inputs",
            "before = len(os.listdir('/proc/self/task'))",
            "model = load(); model.score(empty_inputs(8, 200, model.dim))",
            "print(len(os.listdir('/proc/self/task')) - before)",
        )
        == "0"
    )


def test_the_packaged_model_loads_without_pytorch() -> None:
    assert (
        run(
            "import sys; from scoring.attention import load; load()",
            "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'onnx', 'onnxscript')))",
        )
        == "[]"
    )


def run(*lines: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def manifest(**fields: object) -> Manifest:
    told = {
        "format": 1, "name": "shop", "spec_hash": "", "dim": 4, "vocabulary": 50, "opset": 18, "data": "",
        "golden": "g", "files": {"a": "1", "b": "2"},
    }  # fmt: skip
    return Manifest(**(told | fields))  # type: ignore[arg-type]  # the fields are as the test says


def test_the_version_names_the_model_what_its_files_are_and_what_they_are_given() -> None:
    version = manifest().version
    assert version.startswith("shop-")
    assert len(version) == len("shop-") + 8
    assert manifest(files={"b": "2", "a": "1"}).version == version
    assert manifest(metrics={"auc": 0.7}, git_revision="abc").version == version
    assert manifest(files={"a": "1", "b": "3"}).version != version
    assert manifest(files={"a": "1"}).version != version
    assert manifest(spec_hash="1").version != version


def test_two_models_of_one_name_have_different_versions(tmp_path: Path) -> None:
    def other(golden: dict[str, np.ndarray]) -> None:
        golden["logit"][0, 0] += 1e-5

    first, second = load(toy_model(tmp_path / "a")), load(toy_model(tmp_path / "b", golden=other))
    assert first.version != second.version
