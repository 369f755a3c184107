"""Knobs: the settings at which a trained network's decisions are recorded, so that policies may use them."""

from __future__ import annotations

from itertools import product

import numpy as np

from ..hardware.ways import spread
from ..spaces.network import DynamicNetwork
from .score_table import Setting, record
from .splits import Part

LEVELS = 8
MOST_SETTINGS = 24  # each costs a run over the tune, the certify and, for members of the front, the test split


def settings_of(network: DynamicNetwork, part: Part, *, levels: int = LEVELS) -> tuple[Setting, ...]:
    """All knobs at 0, then settings that spread the share of decisions that fall for the dearer side.

    Knobs that name one of a few ways stand at their levels. Of the others, a decision falls for the dearer side where
    its margin plus the knob is above 0. So the levels of such a knob are quantiles of the margins met on a split that
    nothing else is chosen on; what later layers see changes with the knob, so the shares come out near the quantiles,
    not at them.

    Args:
        network: trained.
        part: the calibration split.
        levels: of each knob; fewer where several knobs would give too many settings.
    """
    if not network.knobs:
        return ((),)
    free = [knob for knob in network.knobs if knob not in network.levels]
    margins = record(network, part.x).margins if free else {}
    count = levels if len(network.knobs) == 1 else max(2, int(MOST_SETTINGS ** (1 / len(network.knobs))) - 1)
    rows = [[(knob, value) for value in spread(values, count + 1)] for knob, values in network.levels.items()]
    for knob in free:
        values = margins.get(knob)
        quantiles = np.zeros(0) if values is None else np.quantile(values.numpy(), np.linspace(0.05, 0.95, count))
        rows.append([(knob, round(float(-each), 5)) for each in quantiles] + [(knob, 0.0)])
    made = [tuple(sorted((name, value) for name, value in row if value != 0)) for row in product(*rows)]
    return tuple(dict.fromkeys([(), *made]))
