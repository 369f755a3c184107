"""The embedded texts: opinions made by a small grammar, some clear from the start, some only at the end.

The rule. A text is a row of clauses between neutral words. A clause is a word of praise or of blame, and a negator
right before it turns it around: `not dull` is praise. A text praises (label 1) if more of its clauses do, after their
negators, than blame (label 0); there are never equally many. Two kinds of text:

- *Easy*, half of all: three clauses of one tendency within the first words, and nothing but neutral words after them.
- *Hard*: two clauses that cancel out within the first words, neutral words, and one clause among the last words that
  decides.

So after the first third an easy text is settled, while a hard one is open until its end. Without the order of words
nobody can do well: 4 of 10 clauses are negated. At last, one label in 20 is turned around at random, independent of the
text, so that nobody can be right more often than in 95 of 100 texts, and who follows the rule is: the Bayes accuracy is
0.95, for easy and hard texts alike.
"""

from __future__ import annotations

from typing import final

import numpy as np

from ...spaces.errors import DataError
from .data import Data
from .texts import from_texts

TEXTS = 3000
NEGATED = 0.4
WRONG = 0.05  # share of labels that are turned around
BAYES_ACCURACY = 1 - WRONG
NEGATORS = ("not", "never", "hardly")
PRAISE = ("good", "fine", "lovely", "bright", "brave", "funny", "warm", "clever")
BLAME = ("bad", "poor", "dull", "grim", "weak", "stale", "cold", "clumsy")
NEUTRAL = tuple(
    "the a this that film book story play scene actor author stage page part hour evening city river house road was is "  # noqa: SIM905 - a list of words reads best as words
    "had came went made with from about under after before while and then there here again some each other music voice "
    "light paper window table morning".split()
)
_EARLY, _MIDDLE, _LATE = (0, 2), (10, 17), (0, 2)  # neutral words before, between and after clauses


@final
class _Writer:
    """Writes texts.

    Args:
        generator: of everything that is random.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def _neutral(self, bounds: tuple[int, int]) -> list[str]:
        count = int(self._generator.integers(bounds[0], bounds[1] + 1))
        return [NEUTRAL[int(number)] for number in self._generator.integers(len(NEUTRAL), size=count)]

    def _one(self, words: tuple[str, ...]) -> str:
        return words[int(self._generator.integers(len(words)))]

    def _clause(self, tendency: int) -> list[str]:
        """A clause that praises (1) or blames (-1)."""
        negated = self._generator.random() < NEGATED
        word = self._one(PRAISE if (tendency > 0) != negated else BLAME)
        return [self._one(NEGATORS), word] if negated else [word]

    def text(self, tendency: int, *, hard: bool) -> list[str]:
        """A text that praises (1) or blames (-1)."""
        first = 2 * int(self._generator.integers(2)) - 1
        early = (first, -first) if hard else (tendency,) * 3
        words: list[str] = []
        for each in early:
            words += self._neutral(_EARLY) + self._clause(each)
        words += self._neutral(_MIDDLE)
        return words + (self._clause(tendency) if hard else []) + self._neutral(_LATE)


def tendency(words: list[str]) -> int:
    """Praising clauses less blaming ones: the rule, read off a text."""
    total = 0
    for before, word in zip(["", *words], words, strict=False):
        sign = (word in PRAISE) - (word in BLAME)
        total += -sign if before in NEGATORS else sign
    return total


def opinions(texts: int = TEXTS, seed: int = 0) -> Data:
    """Texts of up to 28 words in two classes, half of them easy.

    Raises:
        DataError: if too few are asked for.
    """
    if texts < 8:
        raise DataError("data", f"must be 8 texts or more, but got {texts}")
    generator = np.random.default_rng([seed, 0x7E])
    writer = _Writer(generator)
    written, labels = [], []
    for number in range(texts):
        label, hard = number % 2, number % 4 >= 2
        written.append(" ".join(writer.text(2 * label - 1, hard=hard)))
        labels.append(label if generator.random() >= WRONG else 1 - label)
    return from_texts(written, np.array(labels), name="opinions")
