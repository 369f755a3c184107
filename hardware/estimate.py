"""What is known of the cost of a part: a value, how far it may be off, and on which step of the ladder it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

How = Literal["measured", "interpolated", "modelled"]
LADDER: Final[tuple[How, ...]] = ("measured", "interpolated", "modelled")  # the surest first


@final
@dataclass(frozen=True)
class Estimate:
    """What a part costs.

    Args:
        ms: milliseconds a call.
        relsd: standard deviation of that, as a fraction.
        how: the step of the ladder.
    """

    ms: float
    relsd: float
    how: How


def least_sure(*steps: How) -> How:
    """The lowest of some steps of the ladder; of none, `measured`."""
    return max(steps, key=LADDER.index, default="measured")
