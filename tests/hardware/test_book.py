"""The latency book: predictions by hand, nothing guessed, and plain values on its way to workers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynarch.hardware.book import DevicePages, LatencyBook
from dynarch.hardware.composition import PartCurve
from dynarch.hardware.correction import IDENTITY, Correction
from dynarch.hardware.inventory import Costs
from dynarch.spaces.errors import MissingEntryError
from dynarch.spaces.policy import Policy
from dynarch.spaces.trace import PartInfo

# One exit: segment 0, its head, two ways to decide, compaction, segment 1.
PARTS = (
    PartInfo("segment.0", "segment", 0),
    PartInfo("exit.0", "exit", 0, 0),
    PartInfo("decide.0.max_prob", "decide", 0, 0, "max_prob"),
    PartInfo("decide.0.entropy", "decide", 0, 0, "entropy"),
    PartInfo("compact.0", "compact", 0, 0),
    PartInfo("segment.1", "segment", 1),
)
COSTS = Costs(PARTS, ("s0", "e0", "dm", "de", "c0", "s1"), (100, 10, 0, 0, 0, 200), 50)
# Milliseconds of a call on 1, 2 and 4 inputs.
MS = {
    "s0": (1.0, 1.5, 2.0),
    "e0": (0.25, 0.25, 0.5),
    "dm": (0.125, 0.125, 0.25),
    "de": (0.5, 0.5, 0.5),
    "c0": (0.1, 0.2, 0.3),
    "s1": (4.0, 6.0, 8.0),
}


def pages(batch: int, *, correction: Correction = IDENTITY, without: tuple[str, ...] = ()) -> DevicePages:
    curves = {key: PartCurve((1, 2, 4), ms, key) for key, ms in MS.items() if key not in without}
    return DevicePages(batch, "env", "v7", correction, curves)


def taken(*exits: int) -> NDArray[np.int64]:
    return np.array(exits, dtype=np.int64)


@pytest.mark.parametrize(
    ("policy", "exits", "expected"),
    [
        # Everybody stays to the end: both segments, no head, no decision.
        (Policy.never(1), (1, 1), [5.0, 5.0]),
        # Everybody leaves at the exit: nothing is decided.
        (Policy.single(1, 0), (0, 0), [1.25, 1.25]),
        # One leaves, one stays: both pay head and decision; at batch 1 nobody is compacted.
        (Policy("max_prob", (0.5,)), (0, 1), [1.375, 5.375]),
        (Policy("entropy", (0.5,)), (0, 1), [1.75, 5.75]),
    ],
)
def test_single_inputs_by_hand(policy: Policy, exits: tuple[int, ...], expected: list[float]) -> None:
    made = pages(1).predict(COSTS, policy, taken(*exits), seed=0)
    assert made.per_sample_ms.tolist() == pytest.approx(expected)
    assert made.mean_ms == pytest.approx(sum(expected) / len(expected))
    # The longest path is that of an input that nothing lets out, unless everybody leaves.
    walled = policy.thresholds[0] == -np.inf
    assert made.worst_ms == pytest.approx(expected[0] if walled else max(expected[-1], 5.0))


def test_a_batch_is_compacted_by_hand() -> None:
    """Two of four leave: segment 0, head and decision on 4; 2 move on, which is what compaction and segment 1 cost."""
    made = pages(4).predict(COSTS, Policy("max_prob", (0.5,)), taken(0, 1, 0, 1), seed=0)
    ms = 2.0 + 0.5 + 0.25 + 0.2 + 6.0
    assert made.per_sample_ms.tolist() == pytest.approx([ms / 4] * 32)  # whatever the shuffle
    # At worst all four stay: then nothing is compacted in truth, but all rows moving is what is charged at most.
    assert made.worst_ms == pytest.approx((2.0 + 0.5 + 0.25 + 0.3 + 8.0) / 4)


def test_a_correction_is_applied_once_a_batch() -> None:
    """b + a * sum + c * calls, five parts with compaction."""
    correction = Correction(a=2.0, b_ms=0.5, c_ms=0.01, n=20, radius=0.1)
    made = pages(4, correction=correction).predict(COSTS, Policy("max_prob", (0.5,)), taken(0, 1, 0, 1), seed=0)
    assert made.mean_ms == pytest.approx((0.5 + 2.0 * 8.95 + 0.01 * 5) / 4)
    assert made.correction_id == correction.correction_id


def test_what_each_part_adds_for_one_input() -> None:
    correction = Correction(a=2.0, b_ms=0.5, c_ms=0.01, n=20, radius=0.1)
    assert pages(1).part_ms(COSTS).tolist() == pytest.approx([1.0, 0.25, 0.125, 0.5, 0.0, 4.0])
    each = pages(4, correction=correction).part_ms(COSTS)
    assert each.tolist() == pytest.approx([(2 * MS[key][2] + 0.01) / 4 for key in COSTS.keys])


def test_a_part_that_was_never_measured_is_refused_by_name() -> None:
    for batch in (1, 4):
        for attempt in (
            lambda batch=batch: pages(batch, without=("s1", "de")).lookup(COSTS),
            lambda batch=batch: pages(batch, without=("s1", "de")).part_ms(COSTS),
            lambda batch=batch: pages(batch, without=("s1", "de")).predict(COSTS, Policy.never(1), taken(1), seed=0),
        ):
            with pytest.raises(MissingEntryError) as caught:
                attempt()
            assert caught.value.keys == ("de", "s1")
            assert str(caught.value) == (
                "the latency table v7 has no entry for decide.0.entropy (de), segment.1 (s1); profile the space again"
            )


def test_compaction_needs_an_entry_only_where_it_can_run() -> None:
    assert pages(1, without=("c0",)).predict(COSTS, Policy.never(1), taken(1), seed=0).mean_ms == 5.0
    with pytest.raises(MissingEntryError, match=r"compact\.0"):
        pages(2, without=("c0",)).lookup(COSTS)


@given(exits=st.lists(st.integers(0, 1), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_a_batch_costs_no_less_than_its_parts_at_best_and_no_more_than_the_worst(exits: list[int], seed: int) -> None:
    policy = Policy("max_prob", (0.5,))
    single, batch = (pages(n).predict(COSTS, policy, taken(*exits), seed=seed) for n in (1, 4))
    assert single.mean_ms == pytest.approx(1.375 + 4.0 * sum(exits) / len(exits))
    for made in (single, batch):
        assert made.p50_ms <= made.p90_ms <= made.p95_ms <= made.p99_ms <= made.worst_ms + 1e-12
        assert made.low_ms <= made.mean_ms <= made.high_ms
    assert (2.0 + 0.5 + 0.25) / 4 - 1e-12 <= batch.mean_ms <= batch.worst_ms + 1e-12


def test_the_first_device_is_the_one_that_policies_are_tuned_for() -> None:
    book = LatencyBook({"phone": pages(1), "server": pages(4)})
    assert book.first == ("phone", book.devices["phone"])


def test_a_book_survives_as_plain_values_in_order() -> None:
    correction = Correction(a=2.0, b_ms=0.5, c_ms=0.01, n=20, radius=0.1)
    book = LatencyBook({"z": pages(4, correction=correction), "a": pages(1)})
    back = LatencyBook.from_mapping(json.loads(json.dumps(book.to_mapping(), allow_nan=False)))
    assert list(back.devices) == ["z", "a"]
    policy = Policy("max_prob", (0.5,))
    for name, original in book.devices.items():
        again = back.devices[name]
        assert (again.batch, again.environment_id, again.table_version) == (original.batch, "env", "v7")
        assert again.correction.correction_id == original.correction.correction_id
        one, two = (each.predict(COSTS, policy, taken(0, 1, 1), seed=3) for each in (original, again))
        assert one.per_sample_ms.tolist() == two.per_sample_ms.tolist()
        assert one.summary() == two.summary()
