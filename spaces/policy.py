"""How a trained network decides at run time: one threshold an exit, and the knobs of the other families.

A policy changes no weight, so one trained candidate has many of them, and each is an operating point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from .errors import SpecError

_KEYS = ("decision", "thresholds", "setting")


@final
@dataclass(frozen=True)
class Policy:
    """A sample leaves at the first tried exit whose score is above that exit's threshold.

    Args:
        decision: name of the decision scheme that gives the scores, higher meaning more certain.
        thresholds: one an early exit, in depth order. None: the exit is not tried at all; `-inf`: every sample
            that gets there leaves.
        setting: knobs of other families as (name, value); kept sorted by name.

    Raises:
        SpecError: if a threshold is NaN or `inf`, a setting is not finite or named twice, or `decision` is empty.

    Examples:
        >>> Policy("max_prob", (0.9, None, 0.7)).describe()
        'max_prob 0.9 - 0.7'
    """

    decision: str
    thresholds: tuple[float | None, ...]
    setting: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.decision, str) or not self.decision:
            raise SpecError("decision", f"must be the name of a decision scheme, but got {self.decision!r}")
        thresholds = tuple(_threshold(t, f"thresholds[{i}]") for i, t in enumerate(self.thresholds))
        setting = tuple(sorted((name, _knob(value, f"setting.{name}")) for name, value in self.setting))
        names = [name for name, _ in setting]
        if len(set(names)) < len(names):
            raise SpecError("setting", f"each name may appear once, but got {', '.join(names)}; drop the repeated one")
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "setting", setting)

    @classmethod
    def never(cls, exits: int) -> Policy:
        """The full network: no exit is tried.

        Raises:
            SpecError: if `exits` is negative.
        """
        if exits < 0:
            raise SpecError("exits", f"exits >= 0 must hold, but got {exits}")
        return cls("max_prob", (None,) * exits)

    @classmethod
    def single(cls, exits: int, k: int, *, decision: str = "max_prob") -> Policy:
        """Leave everything at exit `k`, trying none before it: the static network cut there.

        `k = exits` names the final head, as it does where exits taken are counted: the full network.

        Raises:
            SpecError: unless `0 <= k <= exits`.
        """
        if not 0 <= k <= exits:
            raise SpecError("k", f"0 <= k <= {exits} must hold, but got {k}; {exits} is the final head")
        if k == exits:
            return cls.never(exits)
        return cls(decision, tuple(-math.inf if i == k else None for i in range(exits)))

    @property
    def enabled(self) -> tuple[bool, ...]:
        """Which exits are tried, in depth order."""
        return tuple(t is not None for t in self.thresholds)

    def describe(self) -> str:
        """A short text for tables and plots; `-` is an exit not tried, `all` one that nobody passes."""
        if not any(self.enabled):
            text = "full network"
        else:
            text = f"{self.decision} " + " ".join(_short(t) for t in self.thresholds)
        return text + "".join(f" {name}={value:.4g}" for name, value in self.setting)

    def to_dict(self) -> dict[str, object]:
        """A value that is plain JSON (RFC 8259 has no infinity, so `-inf` becomes the text "-inf")."""
        return {
            "decision": self.decision,
            "thresholds": ["-inf" if t == -math.inf else t for t in self.thresholds],
            "setting": dict(self.setting),
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, object], path: str = "policy") -> Policy:
        """The policy that `to_dict` wrote.

        Raises:
            SpecError: with the place below `path` on a missing key, an unknown key or a bad value.
        """
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a mapping with {', '.join(_KEYS)}, but got {type(mapping).__name__}")
        for key in mapping:
            if key not in _KEYS:
                raise SpecError(f"{path}.{key}", f"unknown key; the keys are {', '.join(_KEYS)}")
        for key in _KEYS[:2]:
            if key not in mapping:
                raise SpecError(f"{path}.{key}", "is missing; give it")
        thresholds, setting = mapping["thresholds"], mapping.get("setting", {})
        if not isinstance(thresholds, list | tuple):
            raise SpecError(f"{path}.thresholds", f"must be a list, but got {type(thresholds).__name__}")
        if not isinstance(setting, Mapping):
            raise SpecError(f"{path}.setting", f"must map names to numbers, but got {type(setting).__name__}")
        values = tuple(-math.inf if t == "-inf" else t for t in thresholds)
        try:
            return cls(mapping["decision"], values, tuple(setting.items()))  # type: ignore[arg-type]
        except SpecError as error:  # the value knows its own fields only; say where in the spec they stand
            raise SpecError(f"{path}.{error.path}", error.message) from None


def _threshold(value: object, path: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value == math.inf:
        raise SpecError(path, f'must be a number, "-inf" or null (exit not tried), but got {value!r}')
    return float(value)


def _knob(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(path, f"must be a finite number, but got {value!r}")
    return float(value)


def _short(threshold: float | None) -> str:
    if threshold is None:
        return "-"
    return "all" if threshold == -math.inf else f"{threshold:.4g}"
