"""What an item is, as numbers: the one feature definition of training, replay and serving.

An item's *feature vector* is a signed hash of its content into a fixed space of `FEATURE_DIM` dimensions
(feature hashing, Weinberger et al. 2009, with several places per token as in sparse random projections,
Achlioptas 2003). It belongs to no model: a new model, a new ad and an old interest vector always fit.
The *tokens* are the same content for a learned encoder, which maps each 64-bit token into its own table.
"""

import json
import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from scoring.arrays import Ids
from scoring.ids import id64

FEATURE_DIM = 64
"""K: dimensions of feature and interest vectors."""
PLACES_PER_TOKEN = 4
"""Places a token's sign is added to; four make two unrelated tokens nearly orthogonal in 64 dimensions."""
TOKENS_MAX = 24
"""T: tokens an item gives to a learned encoder: 4 category levels, brand, price band, id, 8 tags, 9 words."""
TAGS_MAX, WORDS_MAX, LEVELS_MAX = 8, 9, 4
DENSE_DIM = 3
"""R: numbers an item gives to a learned encoder: log price, whether it has a price, share of tags used."""

TOKEN_WEIGHTS = {"category": 1.0, "brand": 1.0, "tag": 1.0, "price": 0.5, "word": 0.5}
"""How much each kind of token counts in the feature vector. The id counts nothing there: content only."""

_WORD = re.compile(r"\w+")

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of an item before anyone has seen it. Price in micros, 0 where it has none."""

    item_id: str
    category: str = ""
    brand: str = ""
    price_micros: int = 0
    tags: tuple[str, ...] = ()
    title: str = ""


def top_category(path: str) -> str:
    """The first level of a category's ``path`` that is not empty; "" where there is none."""
    return next((level for each in path.split("/") if (level := each.strip())), "")


def price_band(price_micros: int) -> str:
    """Half-decade band of the price on a log scale; "" where there is no price."""
    return "" if price_micros <= 0 else str(round(2 * math.log10(price_micros / 1e6)))


def tokens(content: Content) -> list[tuple[str, str]]:
    """The item's content as (kind, text) pairs, at most `TOKENS_MAX`, in a fixed order without repeats."""
    levels = [level for level in content.category.split("/") if level][:LEVELS_MAX]
    pairs = [("id", content.item_id)]
    pairs += [("category", "/".join(levels[: depth + 1])) for depth in range(len(levels))]
    pairs += [("brand", content.brand)] if content.brand else []
    pairs += [("price", band)] if (band := price_band(content.price_micros)) else []
    pairs += [("tag", tag) for tag in content.tags[:TAGS_MAX]]
    pairs += [("word", word) for word in _WORD.findall(content.title.lower())[:WORDS_MAX]]
    return list(dict.fromkeys(pairs))


def feature_vector(content: Content) -> Vector:
    """The signed hash of the content, ``[FEATURE_DIM]``, of unit length (zero for an item with no content)."""
    vector = np.zeros(FEATURE_DIM, dtype=np.float32)
    for kind, text in tokens(content):
        if weight := TOKEN_WEIGHTS.get(kind):
            add_token(vector, f"{kind}={text}", weight)
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm > 0 else vector


def add_token(vector: Vector, token: str, weight: float) -> None:
    """Add a token's signed hash to ``vector [FEATURE_DIM]``, in place. Bytes of one digest choose the places."""
    bits = xxhash.xxh3_128_intdigest(token.encode())
    for _ in range(PLACES_PER_TOKEN):
        place, sign = bits % FEATURE_DIM, 1 if bits & (1 << 20) else -1
        vector[place] += np.float32(sign * weight / math.sqrt(PLACES_PER_TOKEN))
        bits >>= 32


def token_ids(content: Content) -> Ids:
    """Token hashes for a learned encoder, ``[TOKENS_MAX]``, padded with 0."""
    out = np.zeros(TOKENS_MAX, dtype=np.uint64)
    ids = [id64(f"{kind}={text}") for kind, text in tokens(content)]
    out[: len(ids)] = ids
    return out


def dense_features(content: Content) -> Vector:
    """``[DENSE_DIM]``: log10 of the price in units over 6, whether there is a price, share of tags used."""
    priced = content.price_micros > 0
    log_price = math.log10(max(content.price_micros, 1) / 1e6) / 6 if priced else 0.0
    return np.array([log_price, float(priced), min(len(content.tags), TAGS_MAX) / TAGS_MAX], dtype=np.float32)


SPECIFICATION = {
    "version": 1,
    "feature_dim": FEATURE_DIM,
    "places_per_token": PLACES_PER_TOKEN,
    "tokens_max": TOKENS_MAX,
    "tags_max": TAGS_MAX,
    "words_max": WORDS_MAX,
    "levels_max": LEVELS_MAX,
    "dense": ["log10_price/6", "has_price", "tags/8"],
    "token_weights": TOKEN_WEIGHTS,
    "hash": "xxh3",
}


def specification_hash(*parts: object) -> str:
    """Hash of the feature specification and of further ``parts`` (JSON values), 16 hex digits.

    A model's manifest carries it; a worker refuses a model whose hash differs from its own.
    """
    return xxhash.xxh3_64_hexdigest(json.dumps([SPECIFICATION, *parts], sort_keys=True).encode())
