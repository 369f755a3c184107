"""Texts: words, ids, and a vocabulary of the train split alone."""

from __future__ import annotations

import numpy as np
import pytest

from dynarch.evaluators.data import Data, Vocabulary, from_texts, restricted
from dynarch.evaluators.data.texts import words_of
from dynarch.evaluators.splits import SplitSpec, split_indices, visible_splits, with_vocabulary
from dynarch.spaces.errors import DataError
from dynarch.spaces.signature import Signature

TEXTS = ("the good film", "a bad film", "good", "bad bad film , really")


def test_words_are_lower_case_and_punctuation_is_apart() -> None:
    assert words_of("Don't go, it's a well-made FILM!") == ["don't", "go", ",", "it's", "a", "well-made", "film", "!"]
    assert words_of(" \t\n") == []


def test_texts_are_cut_and_padded() -> None:
    vocabulary = Vocabulary(("film", "good"))
    assert vocabulary.encode(["good film good", "film", "odd film"], 2).tolist() == [[3, 2], [2, 0], [1, 2]]


def test_every_word_has_an_id_before_the_split() -> None:
    data = from_texts(TEXTS, [1, 0, 1, 0])
    words = ("", "", *(data.words or ()))
    assert data.words == (",", "a", "bad", "film", "good", "really", "the")
    decoded = [" ".join(words[int(i)] for i in row if i) for row in data.x]
    assert decoded == list(TEXTS)
    assert data.signature == Signature((5,), 2, "text", 9)
    assert str(data.x.dtype) == "float32"
    assert from_texts(TEXTS, [1, 0, 1, 0], length=2).x.shape == (4, 2)
    long = from_texts([" ".join(["word"] * 100), "word"], [0, 1])
    assert long.x.shape == (2, 64), "longer texts are cut, unless asked otherwise"
    assert from_texts([" ".join(["word"] * 100), "word"], [0, 1], length=100).x.shape == (2, 100)


def test_a_vocabulary_holds_the_frequent_words_of_the_given_texts() -> None:
    data = from_texts(TEXTS, [1, 0, 1, 0], texts_test=["bad film really", "new"], y_test=[0, 1])
    # In texts 1 and 3: bad 3 times, film 2, each other word once.
    made = restricted(data, np.array([1, 3]))
    assert made.words == ("bad", "film")
    assert made.x.tolist() == [[1, 1, 3, 0, 0], [1, 2, 3, 0, 0], [1, 0, 0, 0, 0], [2, 2, 3, 1, 1]]
    assert made.x_test is not None
    assert made.x_test.tolist() == [[2, 3, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert restricted(data, np.array([1, 3]), most=1).words == ("bad",)
    assert restricted(data, np.arange(4)).words == ("bad", "film", "good")  # 3 and 3 times, by the alphabet; 2
    with pytest.raises(DataError, match="no word occurs 9 times in the training split"):
        restricted(data, np.arange(4), rarest=9)


def many() -> Data:
    """300 texts, each with a word of its own and one of its class."""
    return from_texts([f"word{i} word{i} class{i % 2}" for i in range(300)], np.arange(300) % 2)


def test_nothing_but_the_train_split_gives_words() -> None:
    data = many()
    made = with_vocabulary(data, SplitSpec(), 3)
    rows = split_indices(data, SplitSpec(), 3)
    assert set(made.words or ()) == {"class0", "class1", *(f"word{i}" for i in rows["train"])}
    for name, numbers in rows.items():
        known = made.x[numbers, 0] > 1
        assert known.all() if name == "train" else not known.any()
    again = with_vocabulary(made, SplitSpec(), 3)
    assert (again.id, again.words) == (made.id, made.words), "done twice it changes nothing"
    assert with_vocabulary(data, SplitSpec(), 4).id != made.id
    splits = visible_splits(made, SplitSpec(), 3)
    assert splits.signature == made.signature
    assert splits.classes == 2


def test_words_are_part_of_the_identity() -> None:
    first, second = from_texts(["a b", "b a"], [0, 1]), from_texts(["a c", "c a"], [0, 1])
    assert np.array_equal(first.x, second.x)
    assert first.id != second.id


@pytest.mark.parametrize(
    ("texts", "labels", "path", "message"),
    [
        (["a", " "], [0, 1], "data.x", "must have a word in every text, but number 1 is ' '; remove it"),
        (["a", 3], [0, 1], "data.x", "must hold texts, but number 1 is int"),
        ("abc", [0, 1, 0], "data.x", "must be a list of texts, not empty"),
        ([], [], "data.x", "must be a list of texts, not empty"),
        (["a", "b"], [0], "data", "needs one label an input, but has 2 inputs and 1 labels"),
        (["a", "b"], [0, 2], "data.y", "labels must be 0 .. 2, each present, but [1] never occur"),
    ],
)
def test_bad_texts_are_refused_with_place_and_rule(texts: object, labels: object, path: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        from_texts(texts, labels)
    assert caught.value.path == path
    assert caught.value.message.startswith(message)


def test_a_test_set_is_whole() -> None:
    with pytest.raises(DataError, match="must be given together"):
        from_texts(TEXTS, [1, 0, 1, 0], texts_test=["a"])
    with pytest.raises(DataError, match=r"data\.length: must be at least 1, but got 0"):
        from_texts(TEXTS, [1, 0, 1, 0], length=0)
