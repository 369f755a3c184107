"""Data: every way in, every rule with its one-line message, and no pickle."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from dynarch.evaluators.data import Data, digits, from_arrays, from_dataset, from_npz, load_data
from dynarch.spaces.errors import DataError, SpecError

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(12, 1, 4, 4)).astype(np.float32)
Y = np.arange(12) % 3


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


# -- ways in --------------------------------------------------------------------------------------------------


def test_the_embedded_data_is_the_digits_in_unit_range() -> None:
    data = digits()
    assert data.x.shape == (1797, 1, 8, 8)
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert (data.classes, data.name) == (10, "digits")
    assert [str(data.x.dtype), str(data.y.dtype)] == ["float32", "int64"]
    assert data.signature.input_shape == (1, 8, 8)
    assert data.signature.classes == 10


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        (torch.from_numpy(X), torch.from_numpy(Y)),
        (torch.from_numpy(X).requires_grad_(), Y.astype(float)),
        (X.astype(np.float64), Y.astype(np.int32)),
        (X[:, 0], Y),  # grey images without a channel dimension
        (X.tolist(), Y.tolist()),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    ],
)
def test_every_source_gives_the_same_data(source: object) -> None:
    data = load_data(source)
    assert np.array_equal(data.x, X)
    assert np.array_equal(data.y, Y)
    assert [str(data.x.dtype), str(data.y.dtype), data.classes] == ["float32", "int64", 3]
    assert data.id == load_data((X, Y)).id


def test_half_precision_tensors_are_taken() -> None:
    for kind in (torch.float16, torch.bfloat16):
        data = from_arrays(torch.from_numpy(X).to(kind), Y)
        assert np.allclose(data.x, X, atol=0.02)


def test_data_passes_through() -> None:
    data = from_arrays(X, Y)
    assert load_data(data) is data


def test_bytes_are_scaled_to_the_unit_range_and_other_integers_are_not() -> None:
    raw = np.array([[0, 255], [51, 102]], dtype=np.uint8)
    assert from_arrays(raw, [0, 1]).x.tolist() == [[0.0, 1.0], pytest.approx([0.2, 0.4])]
    assert from_arrays(raw.astype(np.int64), [0, 1]).x.tolist() == [[0.0, 255.0], [51.0, 102.0]]


def test_a_test_set_comes_with_the_data() -> None:
    data = load_data((X, Y, X[:5], Y[:5]))
    assert data.x_test is not None
    assert data.y_test is not None
    assert np.array_equal(data.x_test, X[:5])
    assert np.array_equal(data.y_test, Y[:5])
    rows = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    from_set = from_dataset(rows, test=TensorDataset(torch.from_numpy(X[:5]), torch.from_numpy(Y[:5])))
    assert from_set.id == data.id


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train"), ("train_x", "train_y")])
@pytest.mark.parametrize("test_names", [None, ("x_test", "y_test"), ("test_x", "test_y")])
def test_npz_files(tmp_path: Path, names: tuple[str, str], test_names: tuple[str, str] | None) -> None:
    stored = {names[0]: X, names[1]: Y} | ({} if test_names is None else {test_names[0]: X[:5], test_names[1]: Y[:5]})
    np.savez(tmp_path / "patterns.npz", **stored)  # type: ignore[arg-type]
    data = load_data(tmp_path / "patterns.npz")
    assert np.array_equal(data.x, X)
    assert data.name == "patterns"
    assert (data.x_test is None) == (test_names is None)


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """Not a `TensorDataset`: items are made one by one."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[index]), int(Y[index])


def test_a_dataset_of_the_users_own() -> None:
    assert load_data(Plain()).id == from_arrays(X, Y).id


def test_the_id_is_of_the_content() -> None:
    base = from_arrays(X, Y)
    changed = X.copy()
    changed[3, 0, 1, 1] += 1e-3
    others = [from_arrays(changed, Y), from_arrays(X, Y[::-1]), from_arrays(X, Y, x_test=X, y_test=Y)]
    assert len({base.id, *(other.id for other in others)}) == 4
    assert from_arrays(X, Y, name="other").id == base.id


@given(
    arrays.arrays(np.float32, (9, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.permutations([0, 1, 2] * 3),
)
def test_finite_numbers_are_kept_as_they_are(x: NDArray[np.float32], y: list[int]) -> None:
    data = from_arrays(x, y)
    assert np.array_equal(data.x, x)
    assert data.y.tolist() == y


# -- rules ----------------------------------------------------------------------------------------------------


def with_value(value: float) -> object:
    changed = X.copy()
    changed[4, 0, 2, 2] = value
    return changed


REFUSED: tuple[tuple[Callable[[], object], str, str], ...] = (
    (lambda: from_arrays(with_value(np.nan), Y), "data.x", "must be finite, but 1 inputs are not (first: number 4); c"),
    (lambda: from_arrays(with_value(-np.inf), Y), "data.x", "must be finite, but 1 inputs are not (first: number 4)"),
    (lambda: from_arrays(X.astype(np.float64) * 1e300, Y), "data.x", "must be finite"),  # not in float32
    (lambda: from_arrays(X, Y - 1), "data.y", "labels must be 0 .. classes - 1, but got -1"),
    (lambda: from_arrays(X, Y + 0.5), "data.y", "must be whole numbers 0 .. classes - 1"),
    (lambda: from_arrays(X, np.where(Y == 0, np.nan, Y)), "data.y", "must be whole numbers"),
    (lambda: from_arrays(X, Y + 1j), "data.y", "must be whole numbers"),
    (lambda: from_arrays(X, ["a"] * 12), "data.y", "must be whole numbers"),
    (lambda: from_arrays(X, 2 * Y), "data.y", "labels must be 0 .. 4, each present, but [1, 3] never occur; renumber"),
    (lambda: from_arrays(X, 0 * Y), "data.y", "must hold at least two classes, but every label is 0"),
    (lambda: from_arrays(X, Y[:-1]), "data", "needs one label an input, but has 12 inputs and 11 labels"),
    (lambda: from_arrays(X, np.eye(3)[Y]), "data.y", "must be n class indices, but has shape (12, 3)"),
    (lambda: from_arrays(X[:0], Y[:0]), "data.x", "must be n x ... with n >= 1, but has shape (0, 1, 4, 4)"),
    (lambda: from_arrays(X[:, 0, 0, 0], Y), "data.x", "must be n x ... with n >= 1, but has shape (12,)"),
    (lambda: from_arrays(X > 0, Y), "data.x", "must hold numbers, but holds bool"),
    (lambda: from_arrays(X + 1j, Y), "data.x", "must hold numbers, but holds complex64"),
    (lambda: from_arrays([[1.0, 2.0], [3.0]], [0, 1]), "data.x", "must be a rectangular array of numbers"),
    (lambda: from_arrays(np.array([X, None], dtype=object), [0, 1]), "data.x", "must be a rectangular array"),
    (lambda: from_arrays(X, Y, x_test=X), "data", "x_test and y_test must be given together"),
    (
        lambda: from_arrays(X, Y, x_test=X[:, :, :3], y_test=Y),
        "data.x_test",
        "must have inputs of (1, 4, 4), got (1, 3",
    ),
    (lambda: from_arrays(X, Y, x_test=X, y_test=Y + 1), "data.y_test", "labels must be below 3, but got 3"),
    (lambda: from_arrays(X, Y, x_test=X, y_test=Y[:3]), "data.x_test", "needs one label an input, but has 12 inputs"),
    (lambda: from_arrays(X, Y, x_test=with_value(np.nan), y_test=Y), "data.x_test", "must be finite"),
    (lambda: from_arrays(X, Y, x_test=X, y_test=Y - 1), "data.y_test", "labels must be 0 .. classes - 1"),
    (lambda: load_data(TensorDataset(torch.zeros(0, 2), torch.zeros(0))), "data", "must be a dataset with a length"),
    (lambda: load_data([(X[0], 0), (X[1][:, :2], 1)]), "data", "inputs must have one shape, but got ['(1, 2, 4)"),
    (lambda: load_data([(X[0], 0.5), (X[1], 1)]), "data.y", "must be whole numbers"),
    (lambda: load_data([(X[0], np.eye(3)[0]), (X[1], np.eye(3)[1])]), "data.y", "must be n class indices"),
    (lambda: load_data(X), "data", "items must be pairs (input, label)"),  # labels forgotten
    (lambda: load_data([1, 2, 3]), "data", "items must be pairs (input, label)"),
    (lambda: load_data((X, Y, X)), "data", "items must be pairs (input, label)"),
)


@pytest.mark.parametrize(("make", "path", "message"), REFUSED)
def test_bad_data_is_refused_with_place_and_rule(make: Callable[[], object], path: str, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's own complaints are no substitute
        with pytest.raises(DataError) as caught:
            make()
    assert caught.value.path == path
    assert one_line(caught.value).startswith(f"{path}: {message}")


class Stream(IterableDataset[int]):
    """A dataset without a length."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


NAMED = (
    "data: must be one of 'digits', 'opinions', 'drifts' or the path of an .npz or .tsv.gz file or a folder of images"
)
NAMES = f"{NAMED}, but got "
KINDS = (
    "data: must be a name, an .npz or .tsv.gz file, a folder of images, (x, y) arrays or a torch Dataset with a length,"
    " but got "
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnist", f"{NAMES}'mnist'"),
        (Path("x.csv"), f"{NAMES}'x.csv'"),
        (None, f"{KINDS}NoneType"),
        (7, f"{KINDS}int"),
        ({"x": X, "y": Y}, f"{KINDS}dict"),
        (Stream(), f"{KINDS}Stream"),
    ],
)
def test_what_is_no_source_is_refused(source: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_data(source)
    assert one_line(caught.value) == message


# -- files ----------------------------------------------------------------------------------------------------


class Planted:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _run, ()


def _run() -> None:
    Planted.ran = True


@pytest.mark.parametrize("name", ["x", "y", "notes"])
def test_a_pickle_planted_in_a_file_is_refused_unread(tmp_path: Path, name: str) -> None:
    stored: dict[str, object] = {"x": X, "y": Y, name: np.array([Planted()], dtype=object)}
    np.savez(tmp_path / "planted.npz", **stored)  # type: ignore[arg-type]
    if name == "notes":  # nobody asks for it, so it may stay, unread
        from_npz(tmp_path / "planted.npz")
    else:
        with pytest.raises(DataError, match=r"cannot be read as \.npz without pickle") as caught:
            from_npz(tmp_path / "planted.npz")
        one_line(caught.value)
    assert not Planted.ran


def write_npy(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, X)


def write_cut(file: Path) -> None:
    np.savez(file, x=X, y=Y)
    file.write_bytes(file.read_bytes()[:-30])


def write_damaged(file: Path) -> None:
    """A whole archive of which a member was changed."""
    np.savez_compressed(file, x=X, y=Y)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        middle = archive.getinfo("x.npy").header_offset + 200
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "write",
    [
        lambda file: None,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("x,y\n1,2\n"),
        lambda file: file.mkdir(),
        write_npy,
        write_cut,
        write_damaged,
    ],
    ids=["absent", "empty", "text", "folder", "npy", "cut", "damaged"],
)
def test_a_file_that_is_no_npz_is_refused_in_one_line(tmp_path: Path, write: Callable[[Path], object]) -> None:
    file = tmp_path / "x.npz"
    write(file)
    with pytest.raises(DataError) as caught:
        load_data(file, path="data.source")
    assert one_line(caught.value).startswith(f"data.source: {file} cannot be read as .npz without pickle")


def test_a_file_without_the_arrays_names_those_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=X, labels=Y)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "x.npz")
    assert one_line(caught.value) == (
        f"data: {tmp_path / 'x.npz'} must hold arrays x and y (or x_train and y_train), but has ['images', 'labels']"
    )


def test_inputs_are_laid_out_plainly() -> None:
    """See `augment`: strides that pass for channels-last lead PyTorch into a kernel that corrupts memory."""
    data: Data = from_arrays(X[:, 0], Y)
    assert torch.from_numpy(data.x).stride() == (16, 16, 4, 1)
