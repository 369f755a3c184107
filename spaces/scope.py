"""What a space may ask while it describes one candidate, and who can answer.

A space is an ordinary Python function over a `Scope`: its conditions are `if` and `for`. The answers
come from an Optuna trial, from a stored dictionary (`Replay`), from a generator of random numbers
(`Chance`) or from the exhaustive `enumerate_points`: one function, so that nothing can drift apart.
Rules: a name always means the same range, and a question with one possible answer is not asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, final

import numpy as np

from .errors import SpecError

Scalar = str | int | float | bool
T = TypeVar("T", bound=Scalar)
R = TypeVar("R")


class Suggester(Protocol):
    """The few methods of an Optuna trial that a space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of `choices`."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer in `[low, high]`."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in `[low, high]`."""


@final
class Scope:
    """Asks a suggester under a name prefix: `(scope / "early_exit").integer("count", 0, 3)`."""

    def __init__(self, suggester: Suggester, prefix: str = "") -> None:
        self._suggester = suggester
        self._prefix = prefix

    def __truediv__(self, name: str | int) -> Scope:
        return Scope(self._suggester, f"{self._prefix}{name}.")

    def categorical(self, name: str, choices: Sequence[T]) -> T:
        """One of the choices; a single choice is taken without asking."""
        if len(choices) == 1:
            return choices[0]
        answer = self._suggester.suggest_categorical(self._prefix + name, tuple(choices))
        return next(choice for choice in choices if choice == answer and type(choice) is type(answer))

    def boolean(self, name: str) -> bool:
        """True or false."""
        return self.categorical(name, (False, True))

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer in `[low, high]`."""
        return low if low == high else int(self._suggester.suggest_int(self._prefix + name, low, high))

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in `[low, high]`, on a logarithmic scale if `log`."""
        if low == high:
            return low
        return float(self._suggester.suggest_float(self._prefix + name, low, high, log=log))


@final
class Replay:
    """Answers from a stored dictionary, exactly.

    Raises:
        SpecError: if an answer is missing or outside its range; `.path` is the parameter's name.
    """

    def __init__(self, params: Mapping[str, Scalar]) -> None:
        self._params = dict(params)
        self.used: set[str] = set()

    def _answer(self, name: str) -> Scalar:
        if name not in self._params:
            raise SpecError(name, "must be given to replay this architecture, but is missing")
        self.used.add(name)
        return self._params[name]

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """The stored choice."""
        value = self._answer(name)
        if not any(choice == value and type(choice) is type(value) for choice in choices):  # True is not 1
            raise SpecError(name, f"must be one of {list(choices)}, but got {value!r}")
        return value

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The stored integer."""
        value = self.suggest_float(name, low, high)
        if value != int(value):
            raise SpecError(name, f"must be a whole number between {low} and {high}, but got {value!r}")
        return int(value)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The stored number."""
        value = self._answer(name)
        if isinstance(value, str | bool) or not low <= value <= high:
            raise SpecError(name, f"must be a number between {low} and {high}, but got {value!r}")
        return value


@final
class Chance:
    """Answers at random; `params` collects what was answered, ready for `Replay`."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self.params: dict[str, Scalar] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """A uniform choice."""
        self.params[name] = choices[int(self._generator.integers(len(choices)))]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A uniform integer."""
        value = int(self._generator.integers(low, high + 1))
        self.params[name] = value
        return value

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A uniform or log-uniform number."""
        ends = (math.log(low), math.log(high)) if log else (low, high)
        drawn = float(self._generator.uniform(*ends))
        value = min(max(math.exp(drawn) if log else drawn, low), high)
        self.params[name] = value
        return value


@final
class _Odometer:
    """Walks depth first through all answers by running the space again for each leaf."""

    def __init__(self, wheels: list[int]) -> None:
        self.wheels = wheels
        self.sizes: list[int] = []
        self.params: dict[str, Scalar] = {}

    def _next(self, size: int) -> int:
        position = len(self.sizes)
        self.sizes.append(size)
        if position == len(self.wheels):
            self.wheels.append(0)
        return self.wheels[position]

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        if name not in self.params:
            self.params[name] = choices[self._next(len(choices))]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        if name not in self.params:
            self.params[name] = low + self._next(high - low + 1)
        return int(self.params[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        raise SpecError(name, f"a continuous range [{low}, {high}] cannot be enumerated; list values instead")


def enumerate_points(sample: Callable[[Scope], R]) -> Iterator[tuple[dict[str, Scalar], R]]:
    """Every answer that a space allows, each once, with what the space made of it.

    Raises:
        SpecError: if the space asks for a continuous number.
    """
    wheels: list[int] = []
    while True:
        odometer = _Odometer(wheels)
        made = sample(Scope(odometer))
        yield odometer.params, made
        del wheels[len(odometer.sizes) :]
        while wheels and wheels[-1] == odometer.sizes[len(wheels) - 1] - 1:
            wheels.pop()
        if not wheels:
            return
        wheels[-1] += 1
