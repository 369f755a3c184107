"""Files of texts, sequences and clips, and what a search keeps of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynarch.evaluators.data import (
    Data,
    Reading,
    from_clips,
    from_npz,
    from_sequences,
    from_texts,
    load_data,
    restore_data,
    save_data,
)
from dynarch.spaces.errors import DataError, SpecError

PIECES = [np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6]]), np.array([[7.0, 8], [9, 10], [11, 12]])]
PACKED, LENGTHS, Y = np.concatenate(PIECES), np.array([2, 1, 3]), np.array([0, 1, 1])


@pytest.mark.parametrize("name", ["set.tsv", "set.tsv.gz"])
def test_tables_of_texts(tmp_path: Path, name: str) -> None:
    content = b"label\ttext\n1\ta good film .\n0\tbad\tfilm\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    data = load_data(tmp_path / name)
    assert data.name == "set"
    assert data.id == from_texts(["a good film .", "bad film"], [1, 0]).id
    both = load_data(tmp_path / name, reading=Reading(test=str(tmp_path / name), length=2))
    assert both.x.shape == (2, 2)
    assert both.x_test is not None
    assert np.array_equal(both.x, both.x_test)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\tlabel\na\t0\n", "must begin with the line label<tab>text, but begins with 'text\\tlabel'"),
        (b"", "must begin with the line"),
        (b"label\ttext\n0\ta\nb\n", "line 3 must be a class index, a tab and a text, not 'b'"),
        (b"label\ttext\n-1\ta\n", "line 2 must be a class index"),
        (b"label\ttext\n\xff\ta\n", "cannot be read as a table of texts ('utf-8'"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tsv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "x.tsv", path="data.source")
    assert caught.value.path == "data.source"
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_and_absent_tables_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"label\ttext\n" + b"0\tsome text\n" * 200)
    for content in (None, whole[:-12], b"label\ttext\n0\ta\n"):
        if content is not None:
            (tmp_path / "x.tsv.gz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a table of texts"):
            load_data(tmp_path / "x.tsv.gz")
    (tmp_path / "y.tsv").write_text("label\ttext\n0\ta\n1\tb\n")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "y.tsv", reading=Reading(test=str(tmp_path / "x.tsv.gz")))
    assert caught.value.path == "data.test"


def test_packed_sequences(tmp_path: Path) -> None:
    file = tmp_path / "packed.npz"
    np.savez(file, x=PACKED, len=LENGTHS, y=Y, speaker=Y)
    assert from_npz(file).id == from_sequences(PIECES, Y).id
    assert load_data(file, reading=Reading(length=2)).id == from_sequences(PIECES, Y, length=2).id
    np.savez(file, train_x=PACKED, train_len=LENGTHS, train_y=Y, test_x=PACKED[:3], test_len=LENGTHS[:2], test_y=Y[:2])
    expected = from_sequences(PIECES, Y, sequences_test=PIECES[:2], y_test=Y[:2])
    assert from_npz(file).id == expected.id


def test_packed_clips(tmp_path: Path) -> None:
    file = tmp_path / "clips.npz"
    frames = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    np.savez(file, frames=frames, len=LENGTHS, y=Y)
    expected = from_clips([frames[:2], frames[2:3], frames[3:]], Y, frames=2)
    assert load_data(file, reading=Reading(frames=2)).id == expected.id
    np.savez(file, frames=frames.reshape(3, 2, 1, 2, 2), y=Y)
    assert load_data(file, reading=Reading(frames=2)).x.shape == (3, 2, 1, 2, 2)


def packed(**changed: object) -> Callable[[Path], None]:
    stored: dict[str, object] = {"x": PACKED, "len": LENGTHS, "y": Y} | changed
    return lambda file: np.savez(file, **stored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("write", "path", "message"),
    [
        (packed(len=np.array([2, 2, 3])), "data.len", "lengths must add up to the 6 steps packed, got 7"),
        (packed(len=np.array([3, 0, 3])), "data.len", "every input needs a step, but some have a length of 0"),
        (packed(len=np.array([2.5, 0.5, 3])), "data.len", "must be whole numbers"),
        (packed(y=Y[:2]), "data", "needs one label an input, but has 3 inputs and 2 labels"),
        (packed(x=PACKED * np.nan), "data.x.0", "must be finite"),
        (packed(x_test=PACKED, y_test=Y), "data", "must hold test lengths beside x_test"),
    ],
)
def test_bad_archives_are_refused(tmp_path: Path, write: Callable[[Path], None], path: str, message: str) -> None:
    write(tmp_path / "x.npz")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "x.npz")
    assert caught.value.path == path
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reading", "path"),
    [
        ("digits", Reading(length=3), "data.length"),
        ("x.tsv", Reading(frames=3), "data.frames"),
        ("x.npz", Reading(test="y.npz"), "data.test"),
    ],
)
def test_options_that_do_not_apply_are_refused(source: str, reading: Reading, path: str) -> None:
    with pytest.raises(SpecError, match=r"does not apply to .*; leave it out") as caught:
        load_data(source, reading=reading)
    assert caught.value.path == path


def test_images_take_no_options(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 4)), y=[0, 1])
    with pytest.raises(DataError, match="holds inputs of one shape, not sequences; leave out length and stride"):
        load_data(tmp_path / "x.npz", reading=Reading(stride=2))


@pytest.mark.parametrize(
    "data",
    [
        from_texts(["a b", "b a a"], [0, 1], texts_test=["b"], y_test=[0]),
        from_sequences(PIECES, Y),
        from_clips([np.ones((2, 1, 2, 2)), np.zeros((1, 1, 2, 2))], [0, 1], frames=3),
        load_data((np.zeros((3, 1, 2, 2)), Y)),
    ],
    ids=lambda data: data.kind,
)
def test_what_is_saved_comes_back_whole(tmp_path: Path, data: Data) -> None:
    save_data(tmp_path / "kept", data)
    kept = restore_data(tmp_path / "kept", data.name)
    assert kept.id == data.id
    assert kept.signature == data.signature
    assert (kept.name, kept.words) == (data.name, data.words)


def test_damaged_notes_about_data_are_refused(tmp_path: Path) -> None:
    for about in (b"{", b"{}", b'{"kind": "text", "classes": 2}'):
        np.savez(tmp_path / "x.npz", x=PACKED, y=Y, about=np.frombuffer(about, np.uint8))
        with pytest.raises(DataError, match="does not hold data of a search"):
            restore_data(tmp_path / "x.npz", "x")


@pytest.mark.parametrize(
    ("file", "kind", "shape", "classes"),
    [
        ("text/trec_train.tsv.gz", "text", (37,), 6),
        ("text/sst2_dev.tsv.gz", "text", None, 2),
        ("sequence/ucr_uea/JapaneseVowels.npz", "sequence", (29, 13), 9),
        ("sequence/fsdd_logmel40.npz", "sequence", (226, 41), 10),
        ("sequence/mgesture_rd_video32.npz", "clip", (16, 1, 32, 32), 6),
    ],
)
def test_real_sets_are_read(
    shared_data: Path, file: str, kind: str, shape: tuple[int, ...] | None, classes: int
) -> None:
    data = load_data(shared_data / file)
    assert (data.kind, data.classes) == (kind, classes)
    assert shape is None or data.signature.input_shape == shape
