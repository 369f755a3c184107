"""Folders of images: idx files and pictures, and what is said of broken ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynarch.evaluators.data import Reading, from_folder, load_data, read_idx
from dynarch.search.problem import Problem
from dynarch.spaces.errors import DataError, SpecError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def idx(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """The format by hand: two zeros, 8 for bytes, the rank, sizes with the high byte first."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()


def mnist_like(folder: Path, *, zipped: bool) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[int]]:
    pixels, y = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4), [1, 0, 1]
    for name in ("train-images-idx3", "t10k-images-idx3"):
        write(folder / f"{name}-ubyte", idx(pixels), zipped=zipped)
    for name in ("train-labels-idx1", "t10k-labels-idx1"):
        write(folder / f"{name}-ubyte", idx(np.array(y, np.uint8)), zipped=zipped)
    return pixels, y


def write(file: Path, content: bytes, *, zipped: bool) -> None:
    (file.with_name(f"{file.name}.gz") if zipped else file).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(tmp_path: Path, zipped: bool) -> None:
    pixels, y = mnist_like(tmp_path, zipped=zipped)
    data = load_data(tmp_path)
    assert (data.name, data.kind, data.y.tolist()) == (tmp_path.name, "image", y)
    assert data.x_test is not None
    np.testing.assert_allclose(data.x, pixels[:, None] / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(data.x, data.x_test)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (300, 1, 2)])
def test_an_idx_file_gives_back_its_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)
    write(tmp_path / "a", idx(array), zipped=True)
    assert read_idx(tmp_path / "a.gz", "data").dtype == np.uint8
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", "data"), array)


BAD = {
    "not gzip": b"plain text",
    "empty": gzip.compress(b""),
    "only a magic number": gzip.compress(b"\0\0\x08"),
    "four-byte integers": gzip.compress(struct.pack(">BBBBI", 0, 0, 12, 1, 1) + b"1234"),
    "a byte short": gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"12"),
    "a byte too long": gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"1234"),
    "sizes cut off": gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 2, 3)),
    "stream cut off": gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"123")[:-10],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_broken_idx_file_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.gz cannot be read as idx"):
        read_idx(tmp_path / "a.gz", "data")


def test_an_idx_file_that_is_missing_is_named(tmp_path: Path) -> None:
    mnist_like(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"lacks the file t10k-labels-idx1-ubyte\.gz"):
        load_data(tmp_path)


def paint(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (3, 2)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def test_pictures_in_a_folder_for_each_class(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "berry" / "1.png", RED)
    paint(tmp_path / "train" / "sky" / "2.png", BLUE)
    paint(tmp_path / "val" / "sky" / "3.bmp", BLUE)
    (tmp_path / "train" / "notes").mkdir()  # no pictures, so no class
    data = from_folder(tmp_path)
    assert data.x_test is not None
    assert data.y_test is not None
    assert (data.x.shape, data.y.tolist(), data.y_test.tolist()) == ((2, 3, 2, 3), [0, 1], [1])
    assert data.x[:, :, 0, 0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert data.x_test[0, :, 1, 2].tolist() == [0, 0, 1]


def test_pictures_of_several_sizes_are_resized_when_asked(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png", RED)
    paint(tmp_path / "b" / "2.png", BLUE, (9, 7))
    with pytest.raises(DataError, match=r"pictures must have one size.*set size"):
        load_data(tmp_path)
    data = load_data(tmp_path, reading=Reading(size=4))
    assert data.x.shape == (2, 3, 4, 4)
    assert data.x[1].reshape(3, -1).T.tolist() == [[0, 0, 1]] * 16


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "1.png", RED)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png cannot be read as a picture"):
        load_data(tmp_path)


def test_folders_without_images_and_odd_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold idx files, or pictures in a folder for each of at least two"):
        load_data(tmp_path)
    for name in ("train/a", "train/b", "test/c"):
        paint(tmp_path / name / "1.png", RED)
    with pytest.raises(DataError, match="classes that are not trained on: c"):
        load_data(tmp_path)


def test_sizes_are_for_pictures_alone(tmp_path: Path) -> None:
    mnist_like(tmp_path, zipped=False)
    with pytest.raises(DataError, match="does not apply to idx files"):
        load_data(tmp_path, reading=Reading(size=4))
    with pytest.raises(SpecError, match="does not apply to data that is not read from a file"):
        load_data("digits", reading=Reading(size=4))


def test_a_spec_finds_the_folder_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels, y = np.zeros((400, 8, 8), np.uint8), (np.arange(400) % 2).astype(np.uint8)
    write(tmp_path / "images" / "train-images-idx3-ubyte", idx(pixels), zipped=True)
    write(tmp_path / "images" / "train-labels-idx1-ubyte", idx(y), zipped=True)
    problem = Problem.from_mapping({"data": {"source": "images"}}, folder=tmp_path)
    assert (problem.data.name, problem.data.x.shape) == ("images", (400, 1, 8, 8))


def test_fashion_mnist_has_its_official_sizes(shared_data: Path) -> None:
    data = load_data(shared_data / "image" / "fashion_mnist")
    assert data.x_test is not None
    assert (data.x.shape, data.x_test.shape, data.classes) == ((60000, 1, 28, 28), (10000, 1, 28, 28), 10)
    assert np.bincount(data.y).tolist() == [6000] * 10
