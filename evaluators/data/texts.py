"""Texts: words, their ids, and a vocabulary that knows nothing but the training split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import DataError
from .checks import labels
from .data import Array, Data, checked, paired_test

PADDING, UNKNOWN, FIRST = 0, 1, 2  # ids; words are numbered from FIRST on
LONGEST = 64  # words of a text that are kept, unless asked otherwise: nearly all of a sentence
RAREST = 2  # times a word must occur in training to have an id: of the others, the id of the unknown is learnt
MOST_WORDS = 20_000
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@final
@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids.

    Args:
        words: distinct; the first has the id 2.
    """

    words: tuple[str, ...]

    def encode(self, texts: Iterable[str], length: int) -> Array:
        """Ids `n x length` as float32: longer texts are cut, shorter ones padded with 0, unknown words are 1."""
        ids = {word: number for number, word in enumerate(self.words, start=FIRST)}
        rows = [[ids.get(word, UNKNOWN) for word in words_of(text)[:length]] for text in texts]
        made = np.zeros((len(rows), length), np.float32)
        for row, found in zip(made, rows, strict=True):
            row[: len(found)] = found
        return made


def words_of(text: str) -> list[str]:
    """Lower-case words and punctuation marks; `don't` and `well-made` are one word each."""
    return _WORD.findall(text.lower())


def from_texts(
    texts: object,
    y: object,
    *,
    texts_test: object | None = None,
    y_test: object | None = None,
    length: int | None = None,
    name: str = "texts",
    path: str = "data",
) -> Data:
    """Checked data from strings.

    Every word has an id here; `restricted` then keeps the words of the training split alone, and a search does so.

    Args:
        texts, texts_test: `n` strings.
        y, y_test: `n` class indices.
        length: words of a text that are kept, from its start; None: as many as the longest has, but at most 64.

    Raises:
        DataError: for texts without a word, labels out of range, lengths that differ, fewer than two classes.
    """
    paired_test(texts_test, y_test, path)
    strings = _strings(texts, f"{path}.x")
    tests = None if texts_test is None else _strings(texts_test, f"{path}.x_test")
    found = [words_of(text) for text in (*strings, *(tests or ()))]
    if length is not None and length < 1:
        raise DataError(f"{path}.length", f"must be at least 1, but got {length}")
    length = length or min(LONGEST, max(len(words) for words in found))
    vocabulary = Vocabulary(tuple(sorted({word for words in found for word in words})))
    return checked(
        vocabulary.encode(strings, length),
        labels(y, f"{path}.y"),
        x_test=None if tests is None else vocabulary.encode(tests, length),
        y_test=None if y_test is None else labels(y_test, f"{path}.y_test"),
        name=name,
        path=path,
        kind="text",
        words=vocabulary.words,
    )


def restricted(data: Data, rows: NDArray[np.int64], *, rarest: int = RAREST, most: int = MOST_WORDS) -> Data:
    """The same texts with a vocabulary of the words in some of them; all other words become unknown.

    Words are numbered by falling frequency, equally frequent ones by the alphabet.

    Args:
        data: texts.
        rows: numbers of the texts that words are taken from: the training split.
        rarest: times a word must occur in them.
        most: size that a vocabulary may have.
    """
    words = data.words or ()
    ids, counts = np.unique(data.x[rows], return_counts=True)
    seen = Counter({words[int(i) - FIRST]: int(n) for i, n in zip(ids, counts, strict=True) if i >= FIRST})
    kept = sorted((word for word, count in seen.items() if count >= rarest), key=lambda w: (-seen[w], w))[:most]
    if not kept:
        raise DataError("data.x", f"no word occurs {rarest} times in the training split; bring more texts")
    numbers = {word: number for number, word in enumerate(kept, start=FIRST)}
    table = np.array([PADDING, UNKNOWN, *(numbers.get(word, UNKNOWN) for word in words)], np.float32)
    x_test = None if data.x_test is None else table[data.x_test.astype(np.int64)]
    return replace(data, x=table[data.x.astype(np.int64)], x_test=x_test, words=tuple(kept))


def _strings(value: object, path: str) -> Sequence[str]:
    texts = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
    if not texts:
        raise DataError(path, "must be a list of texts, not empty")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(path, f"must hold texts, but number {number} is {type(text).__name__}")
        if not words_of(text):
            raise DataError(path, f"must have a word in every text, but number {number} is {text!r}; remove it")
    return texts
