"""The network in PyTorch, and the same network as onnxruntime runs it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

import torch
from torch.utils.flop_counter import FlopCounterMode

from onnx_models.export import About, export, restore, run
from onnx_models.network import Network
from onnx_models.probes import encoder_feed
from onnx_models.verify import verify
from scoring.attention import GOLDEN_TOLERANCE, AttentionModel, load, open_unproven, table_rows
from scoring.features import DENSE_DIM
from scoring.inputs import HistoryKind, ModelInputs, empty_inputs
from scoring.manifest import ENCODER
from scoring.text import TEXT_ENCODER, WIDE_DIM
from tests.models import drawn_inputs, drawn_tokens

pytestmark = pytest.mark.train

FLOPS_MAX = 100_000
"""A candidate's share of the processor: 500 candidates are half a millisecond of one core."""


def lively_network(seed: int = 0, vocabulary: int = 300, dense_dim: int = DENSE_DIM) -> "Network":
    """A network whose every weight matters, as after training: none at the zero that some start from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(vocabulary, dense_dim=dense_dim)
        network.attention.begin_alike(60)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> "Network":
    return lively_network()


@pytest.fixture(scope="module")
def directory(network: "Network", tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    export(
        network, directory, About(name="lively", data="none", data_from_ms=5, data_to_ms=7, metrics={"test_auc": 0.5})
    )
    return directory


@pytest.fixture(scope="module")
def model(directory: Path) -> AttentionModel:
    return load(directory)


def score(network: "Network", inputs: ModelInputs) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        outputs = network.attention(**{name: torch.from_numpy(array) for name, array in inputs.feed().items()})
    logit, attention, *_ = outputs
    return logit.numpy(), attention.numpy()


@pytest.mark.parametrize("people", [1, 2, 7, 64])
@pytest.mark.parametrize("candidates", [1, 2, 33, 500])
def test_onnxruntime_scores_as_pytorch_does(
    network: "Network", model: AttentionModel, people: int, candidates: int
) -> None:
    inputs = drawn_inputs(np.random.default_rng(people + 100 * candidates), people, candidates, network.dim)
    for found, wanted in zip(model.score(inputs), score(network, inputs), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < GOLDEN_TOLERANCE / 10


@pytest.mark.parametrize("items", [1, 2, 50, 1_000])
def test_onnxruntime_encodes_as_pytorch_does(network: "Network", model: AttentionModel, items: int) -> None:
    rng = np.random.default_rng(items)
    tokens, dense = drawn_tokens(rng, items), rng.random((items, DENSE_DIM), dtype=np.float32)
    tokens[0] = 0
    with torch.inference_mode():
        rows = torch.from_numpy(table_rows(tokens, network.vocabulary))
        wanted = network.encoder(rows, torch.from_numpy(dense)).numpy()
    assert np.abs(model.encode(tokens, dense) - wanted).max() < GOLDEN_TOLERANCE / 10


def test_a_network_comes_back_from_its_export(network: "Network", directory: Path, model: AttentionModel) -> None:
    again = restore(directory, model.manifest)
    kept = network.state_dict()
    assert again.state_dict().keys() == kept.keys()
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, kept[name]), name


def test_an_export_says_what_it_is_told_and_nothing_of_the_machine_it_ran_on(directory: Path) -> None:
    manifest = load(directory).manifest
    assert (manifest.name, manifest.data_from_ms, manifest.data_to_ms) == ("lively", 5, 7)
    assert manifest.metrics == {"test_auc": 0.5}
    root = str(Path(__file__).parents[2]).encode()
    for file in directory.iterdir():
        assert root not in file.read_bytes(), file.name


def test_one_network_is_exported_to_the_same_bytes_each_time(
    network: "Network", directory: Path, tmp_path: Path
) -> None:
    export(network, tmp_path, About(name="again", data="none"))
    assert load(tmp_path).manifest.files == load(directory).manifest.files


def test_a_measure_that_is_no_number_is_left_out_of_the_manifest(network: "Network", tmp_path: Path) -> None:
    export(network, tmp_path, About(name="x", data="none", metrics={"auc": 0.5, "log_loss": np.nan, "most": np.inf}))
    assert load(tmp_path).manifest.metrics == {"auc": 0.5}


def test_an_export_that_cannot_be_written_leaves_the_former_model(network: "Network", tmp_path: Path) -> None:
    export(network, tmp_path, About(name="former", data="none"))
    (tmp_path / "golden.npz.part").mkdir()  # in the way as a full disk is
    with pytest.raises(OSError, match=r"golden\.npz\.part"):
        export(lively_network(), tmp_path, About(name="later", data="none"))
    assert load(tmp_path).manifest.name == "former"
    assert not (tmp_path / "manifest.json.part").exists()


def test_export_leaves_the_network_as_it_was(network: "Network", tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    export(network, tmp_path, About(name="again", data="none"))
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def reordered(inputs: ModelInputs, name_starts: str, order: np.ndarray) -> ModelInputs:
    feed = {name: array[:, order] if name.startswith(name_starts) else array for name, array in inputs.feed().items()}
    return ModelInputs(**feed)


def test_candidates_in_another_order_have_the_same_scores_in_that_order(network: "Network") -> None:
    rng = np.random.default_rng(1)
    inputs, order = drawn_inputs(rng, 5, 40, network.dim), rng.permutation(40)
    logit, attention = score(network, inputs)
    moved, moved_attention = score(network, reordered(inputs, "candidate", order))
    np.testing.assert_allclose(moved, logit[:, order], atol=1e-6)
    np.testing.assert_allclose(moved_attention, attention[:, order], atol=1e-6)


def test_it_does_not_matter_where_in_the_ring_past_items_stand(network: "Network") -> None:
    rng = np.random.default_rng(2)
    inputs, order = drawn_inputs(rng, 5, 10, network.dim), rng.permutation(50)
    logit, attention = score(network, inputs)
    moved, moved_attention = score(network, reordered(inputs, "history", order))
    np.testing.assert_allclose(moved, logit, atol=1e-5)
    np.testing.assert_allclose(moved_attention, attention[:, :, order], atol=1e-6)


def test_padding_is_as_if_it_were_not_there(network: "Network") -> None:
    inputs = drawn_inputs(np.random.default_rng(3), 4, 10, network.dim)
    inputs.history_mask[:] = np.arange(50) >= 30
    logit, attention = score(network, inputs)
    cut = {name: array[:, 30:] if name.startswith("history") else array for name, array in inputs.feed().items()}
    short, short_attention = score(network, ModelInputs(**cut))
    np.testing.assert_allclose(short, logit, atol=1e-6)
    np.testing.assert_allclose(short_attention, attention[:, :, 30:], atol=1e-6)
    assert not attention[:, :, :30].any()


def test_a_past_item_like_a_candidate_can_draw_its_attention(network: "Network") -> None:
    """The product of key and candidate decides: opposite candidates order past items in opposite ways."""
    inputs = drawn_inputs(np.random.default_rng(4), 2, 2, network.dim)
    inputs.history_mask[:] = 1
    inputs.history_kind[:] = HistoryKind.CLICKED
    inputs.history_age[:] = 1
    inputs.candidates[:, 1] = -inputs.candidates[:, 0]
    _, attention = score(network, inputs)
    assert np.corrcoef(attention[1])[0, 1] < 0
    inputs.history[:] = inputs.history[:, :1]
    _, alike = score(network, inputs)
    assert np.ptp(alike, axis=2).max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_attention_that_begins_alike_goes_to_what_is_alike(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(300)
    network.attention.begin_alike(60)
    inputs = drawn_inputs(np.random.default_rng(seed), 1, 1, network.dim)
    inputs.history_mask[:] = 1
    inputs.history_kind[:] = HistoryKind.CLICKED
    inputs.history_age[:] = 5
    inputs.history[0, 7] = inputs.candidates[0, 0]
    _, attention = score(network, inputs)
    assert attention[0, 0].argmax() == 7
    assert attention[0, 0, 7] > 0.5


def test_an_empty_history_gives_no_nan_forward_or_back(network: "Network") -> None:
    inputs = empty_inputs(3, 4, network.dim)
    lively = lively_network(1)
    given = {name: torch.from_numpy(array) for name, array in inputs.feed().items()}
    logit, attention, *others = lively.attention(**given)
    sum(each.sum() for each in (logit, *others)).backward()
    assert all(torch.isfinite(each).all() for each in (logit, *others))
    assert not attention.any()
    gradients = [weight.grad for weight in lively.attention.parameters() if weight.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dense_dim", [DENSE_DIM, WIDE_DIM])
def test_every_weight_has_a_part_in_the_outcomes(dense_dim: int) -> None:
    lively = lively_network(2, dense_dim=dense_dim)
    rng = np.random.default_rng(5)
    inputs = {name: torch.from_numpy(array) for name, array in drawn_inputs(rng, 6, 9, lively.dim).feed().items()}
    rows = torch.from_numpy(table_rows(drawn_tokens(rng, 54), lively.vocabulary))
    inputs["candidates"] = lively.encoder(rows, torch.rand(54, dense_dim)).reshape(6, 9, lively.dim)
    logit, _, *others = lively.attention(**inputs)
    sum(each.sum() for each in (logit, *others)).backward()
    for name, weight in lively.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_a_candidate_costs_no_more_than_its_share(network: "Network") -> None:
    def flops(candidates: int) -> int:
        with FlopCounterMode(display=False) as counter:
            score(network, empty_inputs(1, candidates, network.dim))
        return int(counter.get_total_flops())

    assert 10_000 < (flops(200) - flops(100)) / 100 <= FLOPS_MAX


def test_a_network_that_asks_for_text_is_exported_and_read_back(tmp_path):
    network = lively_network(dense_dim=WIDE_DIM)
    manifest = export(network, tmp_path, About("texts", "none"))
    assert manifest.text == TEXT_ENCODER
    model = load(tmp_path)
    feed = encoder_feed(np.random.default_rng(4), 6, WIDE_DIM)
    wanted = run(restore(tmp_path, manifest), ENCODER, feed)["vector"]
    assert np.abs(model.encode(feed["tokens"], feed["dense"]) - wanted).max() < GOLDEN_TOLERANCE / 10
    other = feed["dense"].copy()
    other[:, DENSE_DIM:] = 0
    assert np.abs(model.encode(feed["tokens"], other) - wanted).max() > GOLDEN_TOLERANCE
    _, golden = open_unproven(tmp_path)
    assert all(case.passed for case in verify(model, golden, lambda graph, feed: run(network, graph, feed)))
