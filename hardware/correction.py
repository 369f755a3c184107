"""From the sum of isolated parts to the latency of the network that runs them: `T = b + a*sum + c*calls`.

Parts timed alone find their weights and activations in the caches, and nothing is charged for what
happens between them. Three coefficients, fitted on a few whole networks, repair most of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property
from typing import Any, Final, cast, final

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import DataError, SpecError
from .device import content_id
from .interval import MIN_RELSD, NORMAL_SCALE, Outcome, calibrate

# In a network a part can only lose the caches that it has to itself when timed alone, so the true
# factor lies at or above 1 (1.02 to 1.17 were seen). Below 0.5 the fit would explain noise, or parts
# counted twice: the bound leaves room for the first and stops at the second.
SLOPE_MIN = 0.5
MIN_FOR_LINE = 4
MIN_FOR_CALLS = 16
_MIN_FOR_CHOICE = 6  # observations, for three coefficients and something to judge them by
_MUCH_BETTER = 0.75
_BETTER = 0.9
# Half-width of the interval, as a log ratio, before anything is known: uncorrected sums of parts were
# seen to miss by 20 % in root mean square, times 1.645 for nine in ten.
PRIOR_RADIUS = 0.33
_MIN_FOR_RADIUS = 9  # of fewer residuals none is the 90 % quantile of a finite sample
# Weight of one pseudo-observation of the identity; decides only what the networks leave undecided.
_PRIOR_WEIGHT = 1e-3

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Observation:
    """One path through a whole network (or one routed input).

    Args:
        sum_ms: what its parts sum to.
        calls: how many ran.
        measured_ms: what it took.
        relsd: relative standard deviation of the sum, as far as its parts were not measured.
        network: paths of one network have one number, as they tell of each other; None: a network of its own.
        kind: of its backbone.
    """

    sum_ms: float
    calls: float
    measured_ms: float
    relsd: float = 0.0
    network: int | None = None
    kind: str = ""


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
        radius: half-width of `interval` as a log ratio, for networks whose parts were all measured.
        residual_sd: root mean square of the log ratios of networks left out.
        kinds: kinds of backbone that have coefficients of their own, each with them.
    """

    a: float = 1.0
    b_ms: float = 0.0
    c_ms: float = 0.0
    n: int = 0
    loo_mape: float = math.nan
    residual_q05: float = math.nan
    residual_q95: float = math.nan
    radius: float = PRIOR_RADIUS
    residual_sd: float = PRIOR_RADIUS / NORMAL_SCALE
    kinds: tuple[tuple[str, Correction], ...] = ()

    def of(self, kind: str) -> Correction:
        """The coefficients for networks on a kind of backbone; those of all networks where it has none of its own."""
        return dict(self.kinds).get(kind, self)

    def apply(self, sum_ms: float, calls: float) -> float:
        """Predicted latency of one network in milliseconds."""
        return self.b_ms + self.a * sum_ms + self.c_ms * calls

    def apply_all(self, sum_ms: Floats, calls: Floats) -> Floats:
        """`apply` to `n` sums and `n` numbers of calls at once."""
        return self.b_ms + self.a * sum_ms + self.c_ms * calls

    def interval(self, ms: float, relsd: float = 0.0) -> tuple[float, float]:
        """Where nine in ten measurements of a network predicted at `ms` are expected.

        Args:
            ms: the prediction.
            relsd: its relative standard deviation from parts that were not measured.

        Source: Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018 (split
        conformal intervals on normalised residuals); here each network is split off in turn, as they are few.
        """
        radius = self.radius * math.hypot(self.residual_sd, relsd) / self.residual_sd
        return ms * math.exp(-radius), ms * math.exp(radius)

    @cached_property
    def correction_id(self) -> str:
        """Sixteen hex digits; equal exactly when every number is."""
        return content_id(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain data; numbers that are not known are None."""
        values = {name: getattr(self, name) for name in _NUMBERS}
        kinds = {"kinds": {kind: own.to_dict() for kind, own in self.kinds}} if self.kinds else {}
        return {name: None if math.isnan(value) else value for name, value in values.items()} | kinds

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], path: str = "correction") -> Correction:
        """The inverse of `to_dict`.

        Raises:
            SpecError: if a name is missing or unknown, or a value is not a number it can have.
        """
        kinds = mapping.get("kinds", {})
        if not isinstance(kinds, Mapping) or not all(isinstance(own, Mapping) for own in kinds.values()):
            raise SpecError(f"{path}.kinds", f"must be a table of corrections, but got {kinds!r}")
        numbers = {name: value for name, value in mapping.items() if name != "kinds"}
        if set(numbers) != set(_NUMBERS):
            wrong = ", ".join(sorted(set(_NUMBERS).symmetric_difference(numbers)))
            raise SpecError(path, f"must have exactly the names {', '.join(sorted(_NUMBERS))}; differs in {wrong}")
        values: dict[str, float] = {}
        for name, value in numbers.items():
            if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
                raise SpecError(f"{path}.{name}", f"must be a number or null, but got {value!r}")
            values[name] = math.nan if value is None else value
        for name in ("a", "b_ms", "c_ms", "n", "radius", "residual_sd"):
            if not (math.isfinite(values[name]) and values[name] >= 0):
                raise SpecError(f"{path}.{name}", f"must be finite and at least 0, but got {mapping[name]!r}")
        if values["residual_sd"] == 0:
            raise SpecError(f"{path}.residual_sd", "must be above 0, but got 0")
        count = int(values.pop("n"))
        owned = ((str(kind), cls.from_dict(own, f"{path}.kinds.{kind}")) for kind, own in sorted(kinds.items()))
        return cls(n=count, kinds=tuple(owned), **values)


_NUMBERS: Final = tuple(field.name for field in fields(Correction) if field.name != "kinds")
IDENTITY = Correction()


def fit(observations: Sequence[Observation]) -> Correction:
    """Bounded least squares on relative errors, so that small networks count as much as large ones.

    Fewer than 4 observations give the identity, fewer than 16 networks a line: the term for calls made predictions
    worse on 8 static networks and better on 32. Few networks have it only where those that are left out are told much
    better with it, as where gates and exits make many calls of little work each. Kinds of backbones differ in what a
    network adds to its parts; a kind has coefficients of its own where these tell its left-out networks better.

    Raises:
        DataError: if a time is not finite and above 0, or a number of calls or a deviation is negative.
    """
    table = np.array([astuple(o)[:4] for o in observations], dtype=np.float64).reshape(-1, 4)
    valid = np.isfinite(table).all(axis=1) & (table[:, [0, 2]] > 0).all(axis=1) & (table[:, [1, 3]] >= 0).all(axis=1)
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        raise DataError(
            f"observations[{row}]",
            f"times must be finite and above 0, calls and relsd at least 0, but got {observations[row]}",
        )
    if len(table) < MIN_FOR_LINE:
        return IDENTITY
    networks = np.array([-1 - row if o.network is None else o.network for row, o in enumerate(observations)])
    pooled, ratios = _fitted(table, networks)
    kinds = np.array([o.kind for o in observations])
    found = []
    for kind in sorted(set(kinds)) if len(set(kinds)) > 1 else ():
        own = kinds == kind
        if len(set(networks[own])) >= MIN_FOR_LINE:
            made, _ = _fitted(table[own], networks[own])
            if made.loo_mape < _BETTER * _error(ratios[own]):
                found.append((str(kind), made))
    return replace(pooled, kinds=tuple(found))


def _fitted(table: Floats, named: NDArray[np.int64]) -> tuple[Correction, Floats]:
    """One set of coefficients for all rows, and measured over predicted of each with its network left out."""
    count = len(set(named))
    # Paths of very few networks tell of each other all the same: then each is left out for itself.
    networks = named if count >= MIN_FOR_LINE else np.arange(len(named))
    calls, ratios = count >= MIN_FOR_CALLS, _left_out_ratios(table, networks, calls=count >= MIN_FOR_CALLS)
    if not calls and len(table) >= _MIN_FOR_CHOICE:
        others = _left_out_ratios(table, networks, calls=True)
        if _error(others) < _MUCH_BETTER * _error(ratios):
            calls, ratios = True, others
    a, b, c = _solve(table, calls=calls)
    low, high = np.quantile(ratios, (0.05, 0.95))
    radius, residual_sd = _conformal(np.log(ratios), table[:, 3])
    made = Correction(
        a=a,
        b_ms=b,
        c_ms=c,
        n=count,
        loo_mape=_error(ratios),
        residual_q05=float(low),
        residual_q95=float(high),
        radius=radius,
        residual_sd=residual_sd,
    )
    return made, ratios


def _error(ratios: Floats) -> float:
    """Mean absolute relative error of predictions, from measured over predicted."""
    return float(np.abs(1 / ratios - 1).mean())


def _left_out_ratios(table: Floats, networks: NDArray[np.int64], *, calls: bool) -> Floats:
    ratios = np.ones(len(table))
    for network in np.unique(networks):
        out = networks == network
        a, b, c = _solve(table[~out], calls=calls)
        ratios[out] = table[out, 2] / (b + a * table[out, 0] + c * table[out, 1])
    return ratios


def _solve(table: Floats, *, calls: bool) -> tuple[float, float, float]:
    """`a`, `b` and, if `calls`, `c` of `m x 4` rows (sum, calls, measured, relsd)."""
    from scipy.optimize import lsq_linear  # type: ignore[import-untyped]

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


def _conformal(logs: Floats, relsd: Floats) -> tuple[float, float]:
    """Half-width for networks of measured parts alone, and the deviation that it stands for.

    What estimated parts explain of the residuals is taken out of the deviation, as `interval` puts it back in.
    With fewer than 9 residuals the half-width is the largest seen, but not less than the prior.
    """
    residual_sd = max(MIN_RELSD, math.sqrt(max(float((logs**2 - relsd**2).mean()), 0.0)))
    found = calibrate([Outcome(1.0, math.hypot(residual_sd, s), math.exp(r)) for r, s in zip(logs, relsd, strict=True)])
    radius = residual_sd * found.scale
    return (radius if len(logs) >= _MIN_FOR_RADIUS else max(radius, PRIOR_RADIUS)), residual_sd
