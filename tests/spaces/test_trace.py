from __future__ import annotations

import numpy as np
import pytest
import torch

from dynarch.spaces.policy import Policy
from dynarch.spaces.trace import PartInfo, Recorder, counts

# Two exits: segment, exit 0 with two schemes, segment, exit 1 with one, final segment.
PARTS = (
    PartInfo("segment.0", "segment", 0),
    PartInfo("exit.0", "exit", 0, 0),
    PartInfo("decide.0.margin", "decide", 0, 0, "margin"),
    PartInfo("decide.0.entropy", "decide", 0, 0, "entropy"),
    PartInfo("compact.0", "compact", 0, 0),
    PartInfo("segment.1", "segment", 1),
    PartInfo("exit.1", "exit", 1, 1),
    PartInfo("decide.1.margin", "decide", 1, 1, "margin"),
    PartInfo("compact.1", "compact", 1, 1),
    PartInfo("segment.2", "segment", 2),
)
TAKEN = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        # Who leaves at 0 ran a segment, a head and a decision. Who leaves at 1 was moved once, who at 2 twice.
        (Policy("margin", (0.5, 0.5)), ["1110000000", "1110111100", "1110111111"]),
        (Policy("entropy", (0.5, 0.5)), ["1101000000", "1101111000", "1101111011"]),
        # Exit 0 is not tried: nothing of it runs (nobody can leave there).
        (Policy("margin", (None, 0.5)), ["1000000000", "1000011100", "1000011111"]),
        # Everybody who gets to exit 1 leaves: its head runs, but there is nothing to decide or to move.
        (Policy("margin", (0.5, -np.inf)), ["1110000000", "1110111000", "1110111001"]),
        (Policy.never(2), ["1000000000", "1000010000", "1000010001"]),
    ],
    ids=["margin", "entropy", "first exit off", "all leave at the second", "full network"],
)
def test_counts_by_hand(policy: Policy, rows: list[str]) -> None:
    expected = [[float(digit) for digit in row] for row in rows]
    assert counts(PARTS, policy, TAKEN).tolist() == expected


def test_counts_of_nobody_are_empty() -> None:
    assert counts(PARTS, Policy.never(2), np.zeros(0, dtype=np.int64)).shape == (0, len(PARTS))


def test_recorder_adds_up_and_keeps_the_order_of_parts() -> None:
    recorder = Recorder(3)
    recorder.add("segment.0", None)
    recorder.add("exit.0", torch.tensor([0, 2]))
    recorder.add("exit.0", torch.tensor([2]))
    made = recorder.counts((PARTS[1], PARTS[0], PARTS[5]))
    assert made.tolist() == [[1, 1, 0], [0, 1, 0], [2, 1, 0]]
    assert recorder.totals() == {"segment.0": 3, "exit.0": 3}
