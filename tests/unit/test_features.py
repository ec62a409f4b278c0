"""What an item is, as numbers: content only, the same for ever, alike where content is alike."""

import numpy as np
import pytest

from scoring import features
from scoring.features import (
    DENSE_DIM,
    FEATURE_DIM,
    LEVELS_MAX,
    PLACES_PER_TOKEN,
    TAGS_MAX,
    TOKEN_WEIGHTS,
    TOKENS_MAX,
    WORDS_MAX,
    Content,
    add_token,
    dense_features,
    feature_vector,
    price_band,
    specification_hash,
    token_ids,
    tokens,
)
from scoring.ids import id64

SHOE = Content("ad-1", "shoes/running", "Aurora", 79_000_000, ("new", "trail"), "Aurora Trail Runner")
STORED_PLACES = [
    1,
    2,
    6,
    7,
    8,
    9,
    10,
    12,
    14,
    16,
    18,
    21,
    22,
    24,
    25,
    26,
    30,
    33,
    35,
    36,
    39,
    43,
    45,
    46,
    52,
    56,
    57,
    59,
    62,
]
STORED_VALUES = [0.0, 0.232495, 0.232495, 0.0, 0.0, 0.0, -0.232495, 0.232495]


def test_tokens_are_the_category_level_by_level_and_the_rest_of_the_content() -> None:
    assert tokens(SHOE) == [
        ("id", "ad-1"),
        ("category", "shoes"),
        ("category", "shoes/running"),
        ("brand", "Aurora"),
        ("price", "4"),
        ("tag", "new"),
        ("tag", "trail"),
        ("word", "aurora"),
        ("word", "trail"),
        ("word", "runner"),
    ]


def test_tokens_are_bounded_and_not_repeated_however_long_the_content() -> None:
    long = Content(
        "ad", "/".join("abcdefgh"), "b", 1, tuple(f"t{n}" for n in range(99)), " ".join(f"w{n}" for n in range(99))
    )

    kinds = [kind for kind, _ in tokens(long)]

    assert len(kinds) == TOKENS_MAX
    assert [kinds.count(kind) for kind in ("category", "tag", "word")] == [LEVELS_MAX, TAGS_MAX, WORDS_MAX]
    assert tokens(Content("ad", tags=("a", "a", "a"))) == [("id", "ad"), ("tag", "a")]


def test_a_feature_vector_has_unit_length_and_is_zero_without_content() -> None:
    vector = feature_vector(SHOE)

    assert vector.shape == (FEATURE_DIM,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert not feature_vector(Content("ad-1")).any()


def test_the_id_counts_nothing_in_the_feature_vector_and_the_content_does() -> None:
    other = Content("ad-2", SHOE.category, SHOE.brand, SHOE.price_micros, SHOE.tags, SHOE.title)

    assert feature_vector(other).tolist() == feature_vector(SHOE).tolist()
    assert token_ids(other).tolist() != token_ids(SHOE).tolist()


def test_items_alike_are_near_and_items_unlike_are_not() -> None:
    sandal = Content("ad-2", "shoes/sandals", "Aurora", 59_000_000, ("new",), "Aurora Beach")
    kettle = Content("ad-3", "kitchen/kettles", "Borea", 30_000_000, ("steel",), "Borea Whistle")

    nearness = [float(feature_vector(SHOE) @ feature_vector(other)) for other in (SHOE, sandal, kettle)]

    assert nearness == sorted(nearness, reverse=True)
    assert nearness[1] > 0.4
    assert abs(nearness[2]) < 0.3


def test_unrelated_tokens_are_nearly_orthogonal() -> None:
    vectors = np.zeros((300, FEATURE_DIM), dtype=np.float32)
    for number, vector in enumerate(vectors):
        add_token(vector, f"token-{number}", 1.0)

    products = vectors @ vectors.T
    between = products[~np.eye(len(vectors), dtype=bool)]

    assert abs(float(between.mean())) < 0.01
    assert float(between.std()) == pytest.approx(FEATURE_DIM**-0.5, rel=0.1)
    assert float(np.diag(products).mean()) == pytest.approx(1, abs=0.1)


def test_a_token_adds_its_weight_in_a_few_places_each_sign_half_the_time() -> None:
    vector = np.zeros(FEATURE_DIM, dtype=np.float32)
    add_token(vector, "token-1", 3.0)
    signs = []
    for number in range(200):
        other = np.zeros(FEATURE_DIM, dtype=np.float32)
        add_token(other, f"token-{number}", 1.0)
        signs += np.sign(other[other != 0]).tolist()

    assert 0 < np.count_nonzero(vector) <= PLACES_PER_TOKEN
    assert np.abs(vector).max() >= np.float32(3.0 / PLACES_PER_TOKEN**0.5)
    assert abs(np.mean(signs)) < 0.1


@pytest.mark.parametrize(
    ("price_micros", "band"), [(0, ""), (-5, ""), (1, "-12"), (1_000_000, "0"), (79_000_000, "4"), (10**15, "18")]
)
def test_price_bands_are_half_decades(price_micros: int, band: str) -> None:
    assert price_band(price_micros) == band


def test_token_ids_are_hashes_of_the_tokens_padded_with_nothing() -> None:
    ids = token_ids(SHOE)

    assert ids.shape == (TOKENS_MAX,)
    assert ids[:2].tolist() == [id64("id=ad-1"), id64("category=shoes")]
    assert ids[len(tokens(SHOE)) :].tolist() == [0] * (TOKENS_MAX - len(tokens(SHOE)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Content("ad"), [0, 0, 0]),
        (Content("ad", price_micros=1_000_000), [0, 1, 0]),
        (Content("ad", price_micros=10**12, tags=("a", "b")), [1, 1, 0.25]),
        (Content("ad", tags=tuple("abcdefghijkl")), [0, 0, 1]),
    ],
)
def test_dense_features_are_log_price_whether_priced_and_share_of_tags(content: Content, expected: list[float]) -> None:
    dense = dense_features(content)

    assert dense.shape == (DENSE_DIM,)
    assert dense.tolist() == pytest.approx(expected)


def test_vectors_are_those_that_stored_interests_were_made_of() -> None:
    # A change here orphans every stored row and model: it needs a new version of the specification.
    shoe = feature_vector(SHOE)

    assert np.flatnonzero(shoe).tolist() == STORED_PLACES
    assert shoe[:8].tolist() == pytest.approx(STORED_VALUES, abs=1e-6)


def test_the_specification_hash_moves_with_every_part_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    before = specification_hash({"inputs": 1})

    assert specification_hash({"inputs": 1}) == before
    assert len(before) == 16
    assert specification_hash({"inputs": 2}) != before
    for name in features.SPECIFICATION:
        monkeypatch.setitem(features.SPECIFICATION, name, "other")
        assert specification_hash({"inputs": 1}) != before, name
        monkeypatch.undo()
    assert features.SPECIFICATION["token_weights"] == TOKEN_WEIGHTS
