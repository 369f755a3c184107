"""From the sum of isolated parts to the latency of the network that runs them: `T = b + a*sum + c*calls`.

Parts timed alone find their weights and activations in the caches, and nothing is charged for what
happens between them. Three coefficients, fitted on a few whole networks, repair most of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear  # type: ignore[import-untyped]

from ..spaces.errors import DataError, SpecError
from .device import content_id

# In a network a part can only lose the caches that it has to itself when timed alone, so the true
# factor lies at or above 1 (1.02 to 1.17 were seen). Below 0.5 the fit would explain noise, or parts
# counted twice: the bound leaves room for the first and stops at the second.
SLOPE_MIN = 0.5
MIN_FOR_LINE = 4
MIN_FOR_CALLS = 16
COVERAGE = 0.90
# Half-width of the interval, as a log ratio, before anything is known: uncorrected sums of parts were
# seen to miss by 20 % in root mean square, times 1.645 for nine in ten.
PRIOR_RADIUS = 0.33
# Weight of one pseudo-observation of the identity; decides only what the networks leave undecided.
_PRIOR_WEIGHT = 1e-3

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Observation:
    """One whole network (or one routed input): what its parts sum to, how many ran, what it took."""

    sum_ms: float
    calls: float
    measured_ms: float


@final
@dataclass(frozen=True)
class Correction:
    """`T = b_ms + a * sum_ms + c_ms * calls`, and how far such predictions were off.

    Args:
        a: factor on the sum of the parts.
        b_ms: constant a network.
        c_ms: constant a call.
        n: networks it was fitted on; 0 is the identity.
        loo_mape: mean absolute relative error, each network predicted from the others; nan if unknown.
        residual_q05: 5 % quantile of measured over predicted, likewise left out; nan if unknown.
        residual_q95: 95 % quantile of the same.
        radius: half-width of `interval` as a log ratio.
    """

    a: float = 1.0
    b_ms: float = 0.0
    c_ms: float = 0.0
    n: int = 0
    loo_mape: float = math.nan
    residual_q05: float = math.nan
    residual_q95: float = math.nan
    radius: float = PRIOR_RADIUS

    def apply(self, sum_ms: float, calls: float) -> float:
        """Predicted latency of one network in milliseconds."""
        return self.b_ms + self.a * sum_ms + self.c_ms * calls

    def apply_all(self, sum_ms: Floats, calls: Floats) -> Floats:
        """`apply` to `n` sums and `n` numbers of calls at once."""
        return self.b_ms + self.a * sum_ms + self.c_ms * calls

    def interval(self, ms: float) -> tuple[float, float]:
        """Where nine in ten measurements of a network predicted at `ms` are expected.

        Source: Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018 (split
        conformal intervals); here on leave-one-out residuals, as calibration networks are few.
        """
        return ms * math.exp(-self.radius), ms * math.exp(self.radius)

    @cached_property
    def correction_id(self) -> str:
        """Sixteen hex digits; equal exactly when every number is."""
        return content_id(self.to_dict())

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain data; numbers that are not known are None."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, float | int | None], path: str = "correction") -> Correction:
        """The inverse of `to_dict`.

        Raises:
            SpecError: if a name is missing or unknown, or a value is not a number it can have.
        """
        names = {field.name for field in fields(cls)}
        if set(mapping) != names:
            wrong = ", ".join(sorted(names.symmetric_difference(mapping)))
            raise SpecError(path, f"must have exactly the names {', '.join(sorted(names))}; differs in {wrong}")
        values: dict[str, float] = {}
        for name, value in mapping.items():
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
                raise SpecError(f"{path}.{name}", f"must be a number or null, but got {value!r}")
            values[name] = math.nan if value is None else value
        for name in ("a", "b_ms", "c_ms", "n", "radius"):
            if not (math.isfinite(values[name]) and values[name] >= 0):
                raise SpecError(f"{path}.{name}", f"must be finite and at least 0, but got {mapping[name]!r}")
        count = int(values.pop("n"))
        return cls(n=count, **values)


IDENTITY = Correction()


def fit(observations: Sequence[Observation]) -> Correction:
    """Bounded least squares on relative errors, so that small networks count as much as large ones.

    Fewer than 4 networks give the identity, fewer than 16 a line: the term for calls made predictions
    worse on 8 networks and better on 32.

    Raises:
        DataError: if a time is not finite and above 0, or a number of calls is negative.
    """
    table = np.array([(o.sum_ms, o.calls, o.measured_ms) for o in observations], dtype=np.float64).reshape(-1, 3)
    valid = np.isfinite(table).all(axis=1) & (table[:, [0, 2]] > 0).all(axis=1) & (table[:, 1] >= 0)
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        raise DataError(
            f"observations[{row}]",
            f"times must be finite and above 0, calls at least 0, but got {observations[row]}",
        )
    count = len(table)
    if count < MIN_FOR_LINE:
        return IDENTITY
    a, b, c = _solve(table)
    ratios = np.array([_left_out_ratio(table, row) for row in range(count)])  # measured / predicted
    low, high = np.quantile(ratios, (0.05, 0.95))
    return Correction(
        a=a,
        b_ms=b,
        c_ms=c,
        n=count,
        loo_mape=float(np.abs(1 / ratios - 1).mean()),
        residual_q05=float(low),
        residual_q95=float(high),
        radius=_conformal_radius(np.abs(np.log(ratios))),
    )


def _left_out_ratio(table: Floats, row: int) -> float:
    coefficients = _solve(np.delete(table, row, axis=0), calls=len(table) >= MIN_FOR_CALLS)
    return float(table[row, 2] / _predict(table[row], coefficients))


def _predict(row: Floats, coefficients: tuple[float, float, float]) -> float:
    a, b, c = coefficients
    return float(b + a * row[0] + c * row[1])


def _solve(table: Floats, *, calls: bool | None = None) -> tuple[float, float, float]:
    """`a`, `b` and `c` of `m x 3` rows (sum, calls, measured); `c` only if `calls`, or if rows suffice."""
    calls = len(table) >= MIN_FOR_CALLS if calls is None else calls
    measured = table[:, 2]
    columns = [table[:, 0], np.ones_like(measured)] + ([table[:, 1]] if calls else [])
    design = np.stack(columns, axis=1) / measured[:, None]
    # One faint pseudo-observation a coefficient (a = 1, b = 0, c = 0) keeps the answer unique when all
    # networks have the same sum, or calls grow with it. Scaled, so that units do not matter.
    scale = np.abs(design).max(axis=0)
    faint = _PRIOR_WEIGHT * np.diag(np.where(scale > 0, scale, 1.0))
    target = np.concatenate([np.ones_like(measured), faint[0]])
    low = np.array([SLOPE_MIN, 0.0, 0.0][: len(columns)])
    solution = lsq_linear(np.concatenate([design, faint]), target, bounds=(low, np.inf), method="bvls")
    a, b, *rest = (float(value) for value in cast(Floats, solution.x))
    return a, b, rest[0] if rest else 0.0


def _conformal_radius(residuals: Floats) -> float:
    """The `ceil((n + 1) * coverage)`-th smallest residual: the finite-sample quantile.

    With fewer than 9 residuals no such one exists; then the largest seen, but not less than the prior.
    """
    rank = math.ceil((len(residuals) + 1) * COVERAGE)
    if rank > len(residuals):
        return max(float(residuals.max()), PRIOR_RADIUS)
    return float(np.sort(residuals)[rank - 1])
