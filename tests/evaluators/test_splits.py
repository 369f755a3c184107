"""Splits: disjoint, stratified, deterministic; the test split is apart from what workers get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.evaluators.data import Data, digits, from_arrays
from dynarch.evaluators.splits import NAMES, SMALLEST, SplitSpec, sealed_test, split_indices, visible_splits
from dynarch.spaces.errors import DataError, SpecError


def numbered(labels: list[int], *, test: list[int] | None = None) -> Data:
    """Every input holds its own number, so that it can be found again."""
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    if test is None:
        return from_arrays(x, labels)
    return from_arrays(x, labels, x_test=-1 - np.arange(len(test), dtype=np.float32)[:, None], y_test=test)


def shuffled(counts: list[int], seed: int) -> list[int]:
    return [int(y) for y in np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))]


COUNTS = st.lists(st.integers(100, 300), min_size=2, max_size=5)
SHARES = st.builds(
    SplitSpec,
    calibrate=st.floats(0.1, 0.25),
    tune=st.floats(0.15, 0.25),
    certify=st.floats(0.15, 0.2),
    test=st.floats(0.15, 0.2),
)


@settings(deadline=None, max_examples=40)
@given(counts=COUNTS, spec=SHARES, seed=st.integers(0, 2**31 - 1))
def test_splits_are_a_stratified_partition(counts: list[int], spec: SplitSpec, seed: int) -> None:
    """Every input is in one split, and each split has the classes in their shares.

    A class of n_c among n lies evenly spaced on [0, 1), n_c points apart by 1/n_c, and a split is all that lies
    in some interval of width d, so it holds n_c d + e_c of the class with |e_c| < 1. With m = n d + sum(e) in
    all, its count differs from n_c m/n by |e_c - n_c/n sum(e)| < 1 + (C - 1) n_c/n.
    """
    data = numbered([*range(len(counts)), *shuffled(counts, seed)])
    rows = split_indices(data, spec, seed)
    assert set(rows) == set(NAMES)
    everything = np.concatenate([rows[name] for name in NAMES])
    assert sorted(everything.tolist()) == list(range(len(data.y)))
    share = np.bincount(data.y) / len(data.y)
    for name in NAMES:
        held = np.bincount(data.y[rows[name]], minlength=data.classes)
        assert (np.abs(held - share * len(rows[name])) <= 1 + (data.classes - 1) * share + 1e-9).all()
    for name in NAMES[1:]:  # rounding moves a border by half an input, at both ends
        assert abs(len(rows[name]) - getattr(spec, name) * len(data.y)) <= 1


@settings(deadline=None, max_examples=20)
@given(counts=COUNTS, spec=SHARES, seed=st.integers(0, 1000))
def test_splits_depend_on_the_seed_alone(counts: list[int], spec: SplitSpec, seed: int) -> None:
    data = numbered(shuffled(counts, 0))
    first = split_indices(data, spec, seed)
    np.random.default_rng().random(3)
    again = split_indices(data, spec, seed)
    other = split_indices(data, spec, seed + 1)
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)
    assert not all(np.array_equal(first[name], other[name]) for name in NAMES)


def test_the_parts_hold_the_rows_of_the_indices() -> None:
    data, spec = numbered(shuffled([120, 120], 0)), SplitSpec()
    rows, splits, sealed = split_indices(data, spec, 3), visible_splits(data, spec, 3), sealed_test(data, spec, 3)
    for name, part in ((n, sealed if n == "test" else getattr(splits, n)) for n in NAMES):
        assert part.x[:, 0].tolist() == rows[name].tolist()
        assert np.array_equal(part.y.numpy(), data.y[rows[name]])
        assert len(part) == len(rows[name])
    assert splits.classes == 2


def test_what_workers_see_has_no_test_split() -> None:
    data = numbered(shuffled([120, 120], 0))
    splits, sealed = visible_splits(data, SplitSpec(), 0), sealed_test(data, SplitSpec(), 0)
    seen = {float(x) for name in NAMES[:4] for x in getattr(splits, name).x}
    assert not hasattr(splits, "test")
    assert seen | {float(x) for x in sealed.x} == set(range(240))
    assert not seen & {float(x) for x in sealed.x}


def test_a_test_set_that_comes_with_the_data_is_the_test_split() -> None:
    labels, test = shuffled([120, 120], 0), shuffled([15, 15], 1)
    data = numbered(labels, test=test)
    sealed = sealed_test(data, SplitSpec(), 0)
    assert sealed.x[:, 0].tolist() == [-1.0 - i for i in range(30)]
    assert sealed.y.tolist() == test
    rows = split_indices(data, SplitSpec(), 0)
    assert len(rows["test"]) == 0
    assert sum(len(rows[name]) for name in NAMES) == 240  # and its share stays with the train split
    assert len(rows["train"]) == 240 - 24 - 36 - 24


def test_the_share_of_the_digits() -> None:
    """1,797 inputs: 0.1, 0.15, 0.1 and 0.2 of them are 180, 270, 180 and 359, which leaves 808."""
    rows = split_indices(digits(), SplitSpec(), 0)
    assert {name: len(rows[name]) for name in NAMES} == {
        "train": 808,
        "calibrate": 180,
        "tune": 270,
        "certify": 180,
        "test": 359,
    }


def test_tensors_are_laid_out_plainly() -> None:
    """Grey images too: strides that pass for channels-last lead PyTorch into a kernel that corrupts memory."""
    x = np.arange(400 * 4, dtype=np.float32).reshape(400, 2, 2)
    for data in (from_arrays(x, np.arange(400) % 2), Data(x[:, None], np.arange(400) % 2, 2)):
        splits = visible_splits(data, SplitSpec(), 0)
        for part in (splits.train, splits.tune, sealed_test(data, SplitSpec(), 0)):
            assert part.x.stride() == (4, 4, 2, 1)
            assert (part.x.dtype, part.y.dtype) == (torch.float32, torch.int64)


# -- rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "name", "size"),
    [
        # 80 inputs: calibrate 8 of at least 10. 110: tune round(16.5) = 16 of 20. 140: certify 14 of 20.
        (80, "calibrate", 8),
        (110, "tune", 16),
        (140, "certify", 14),
    ],
)
def test_too_small_a_split_is_refused_with_its_size(count: int, name: str, size: int) -> None:
    with pytest.raises(DataError) as caught:
        visible_splits(numbered([i % 2 for i in range(count)]), SplitSpec(), 0)
    assert caught.value.path == f"data.splits.{name}"
    assert str(caught.value) == (
        f"data.splits.{name}: must have at least {SMALLEST[name]} inputs, but {count} inputs give {size}; "
        "bring more data or raise this share"
    )


def test_too_small_a_test_set_of_the_data_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"data\.splits\.test: must have at least 20 inputs, but the test set has 19; bring"
    ) as caught:
        visible_splits(numbered([i % 2 for i in range(300)], test=[0] * 19), SplitSpec(), 0)
    assert "share" not in str(caught.value)  # no share can help a set that comes with the data


def test_a_class_that_is_missing_from_the_train_split_is_named() -> None:
    """Its only input falls anywhere, so for one of twenty seeds it is not in the train split."""
    data = numbered([0] * 400 + [1])

    def all_seeds() -> None:
        for seed in range(20):
            visible_splits(data, SplitSpec(), seed)

    with pytest.raises(DataError, match=r"^data\.splits\.train: must hold every class, but lacks \[1\]"):
        all_seeds()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": 0}, "tune: must be a share between 0 and 1, but got 0"),
        ({"tune": 1.0}, "tune: must be a share between 0 and 1, but got 1.0"),
        ({"test": -0.1}, "test: must be a share between 0 and 1, but got -0.1"),
        ({"tune": 0.5, "test": 0.3}, "calibrate: the shares must leave 5 % to train on, but add up to 1.00"),
        ({"tune": float("nan")}, "tune: "),
        (
            {"tuning": 0.2},
            "tuning: 'tuning' is not known; did you mean 'tune'? (known: calibrate, certify, test, tune)",
        ),
        ({"tune": "many"}, "tune: "),
    ],
)
def test_impossible_shares_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        SplitSpec.from_mapping(options, "data.splits")
    assert str(caught.value).startswith(f"data.splits.{message}")
    assert "\n" not in str(caught.value)
