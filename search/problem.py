"""Problem: everything that defines a search, checked whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

from ..evaluators.data import EMBEDDED, FILES, Data, Reading, load_data
from ..evaluators.evaluators import EVALUATORS
from ..evaluators.metrics import MetricReference, metric_reference
from ..evaluators.splits import SplitSpec, visible_splits, with_vocabulary
from ..hardware.cpu import Cpu
from ..hardware.device import AbstractDevice
from ..hardware.devices import device_from_dict, to_dict
from ..spaces.errors import InfeasibleError, ShapeError, SpecError, UnknownNameError
from ..spaces.space import Space
from ..spaces.spec import AbstractSpec, require, require_name, require_range
from .placement import Cluster

SAMPLERS = ("tpe", "nsga2", "random")
SECTIONS = ("search", "data", "space", "devices", "constraints", "budget", "cluster")


@final
@dataclass(frozen=True)
class Constraint(AbstractSpec):
    """A bound on a metric.

    Args:
        metric: such as `latency_ms` or `latency_ms@phone`.
        minimum, maximum: exactly one of them.
        hard: nothing that breaks it may be on the front, and architectures whose cheapest path breaks it are
            never trained; a soft one only steers the sampler.
    """

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    hard: bool = True

    def check(self) -> None:
        """One bound."""
        require(
            (self.minimum is None) != (self.maximum is None),
            "maximum",
            "give either minimum or maximum, not both",
        )

    def excess(self, metrics: Mapping[str, float], key: str) -> float:
        """How far a point breaks the bound; zero or less where it holds."""
        value = metrics[key]
        return value - self.maximum if self.maximum is not None else (self.minimum or 0.0) - value


@final
@dataclass(frozen=True)
class Budget(AbstractSpec):
    """What a search may spend.

    Args:
        trials: candidates.
        epochs: epochs of a full training.
        minutes: wall clock for the search itself; what has not started by then is not started.
        candidate_minutes: wall clock of one attempt at a candidate; one that takes longer is ended and has failed.
        workers: candidates trained at the same time.
        cpus_per_worker, gpus_per_worker: what Ray reserves for each; a share of a GPU is written as 0.25.
        resources: of the nodes' custom resources, what Ray reserves for each.
    """

    trials: int = 24
    epochs: int = 9
    minutes: float | None = None
    candidate_minutes: float | None = None
    workers: int = 2
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Positive amounts."""
        require_range("trials", self.trials, 1, 1_000_000)
        require_range("epochs", self.epochs, 1, 100_000)
        require_range("workers", self.workers, 1, 10_000)
        for name in ("minutes", "candidate_minutes"):
            value = getattr(self, name)
            require(value is None or value > 0, name, f"must be above 0, but got {value}")
        require(self.cpus_per_worker > 0, "cpus_per_worker", f"must be above 0, but got {self.cpus_per_worker}")
        require(self.gpus_per_worker >= 0, "gpus_per_worker", f"must be 0 or more, got {self.gpus_per_worker}")
        for name, amount in self.resources.items():
            custom = name.lower() not in ("cpu", "gpu", "memory", "object_store_memory", "custom_resources")
            require(custom, f"resources.{name}", "is none of the custom resources; use cpus_per_worker and the like")
            require(amount > 0, f"resources.{name}", f"must be above 0, but got {amount}")


@final
@dataclass(frozen=True)
class Strategy(AbstractSpec):
    """How the search searches.

    Args:
        name: of the search, for people.
        seed: fixes everything that is random.
        sampler: `tpe`, `nsga2` or `random`.
        evaluator: `from_scratch` trains every candidate on its own; `nothing` trains none, and so measures what the
            search itself costs.
        rungs: whether weak candidates are stopped early (never one that holds a non-dominated point).
        first_rung, reduction: rungs are at `first_rung * reduction^i` epochs.
        points: most operating points kept of one candidate.
        front: most points of the final front that are re-timed on the device.
    """

    name: str = "search"
    seed: int = 0
    sampler: str = "tpe"
    evaluator: str = "from_scratch"
    rungs: bool = True
    first_rung: int = 1
    reduction: int = 3
    points: int = 24
    front: int = 24

    def check(self) -> None:
        """Known sampler, sane numbers."""
        require(len(self.name.strip()) > 0, "name", "must not be empty")
        require_range("seed", self.seed, 0, 2**31 - 1)
        require_name("sampler", self.sampler, SAMPLERS)
        require_name("evaluator", self.evaluator, tuple(member.name for member in EVALUATORS))
        require_range("first_rung", self.first_rung, 1, 100_000)
        require_range("reduction", self.reduction, 2, 10)
        require_range("points", self.points, 1, 256)
        require_range("front", self.front, 1, 256)


@final
@dataclass(frozen=True)
class Problem:
    """One search.

    Args:
        space: what may be built.
        data: an embedded set (`digits`, `opinions`, `drifts`), an `.npz` or `.tsv.gz` file, `(x, y)` arrays, a torch
            Dataset, or `Data`. Texts get a vocabulary of the train split.
        devices: name -> device; the first is the one that policies are tuned for.
        objectives: metric references, at least one.
        constraints: bounds on metrics.
        budget: what may be spent.
        splits: shares of the data.
        strategy: how to search.
        cluster: where candidates are trained, unless whoever launches the search says otherwise.

    Raises:
        SpecError, DataError: on the first mistake, with its place.
    """

    space: Space = field(default_factory=Space)
    data: Any = "digits"
    devices: Mapping[str, AbstractDevice] = field(default_factory=lambda: {"cpu": Cpu()})
    objectives: tuple[str, ...] = ("accuracy", "latency_ms")
    constraints: tuple[Constraint, ...] = ()
    budget: Budget = field(default_factory=Budget)
    splits: SplitSpec = field(default_factory=SplitSpec)
    strategy: Strategy = field(default_factory=Strategy)
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        self._check_kinds()
        data = with_vocabulary(load_data(self.data), self.splits, self.strategy.seed)
        object.__setattr__(self, "data", data)
        self._fit_space()
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "constraints", tuple(self.constraints))
        self._check_devices()
        self._check_objectives()
        self._check_constraints()
        visible_splits(self.data, self.splits, self.strategy.seed)
        try:
            for architecture in self.space.outlines(self.data.signature):
                del architecture
        except ShapeError as error:
            raise SpecError("space.backbones", str(error)) from None

    def _check_kinds(self) -> None:
        kinds = {"space": Space, "budget": Budget, "splits": SplitSpec, "strategy": Strategy, "devices": Mapping}
        kinds["cluster"] = Cluster
        for name, kind in kinds.items():
            value = getattr(self, name)
            require(isinstance(value, kind), name, f"must be a {kind.__name__}, but got {value!r}")
        for name, kind in {"objectives": str, "constraints": Constraint}.items():
            values = getattr(self, name)
            fits = isinstance(values, tuple | list) and all(isinstance(value, kind) for value in values)
            require(fits, name, f"must be a tuple of {kind.__name__}, but got {values!r}")

    def _fit_space(self) -> None:
        """Name the backbones, so that the stored problem does not change when others are added to dynarch."""
        try:
            object.__setattr__(self, "space", self.space.fitted(self.data.signature))
        except SpecError as error:
            raise error.under("space") from None

    def _check_devices(self) -> None:
        require(len(self.devices) > 0, "devices", "must name at least one device")
        for name, device in self.devices.items():
            require(isinstance(name, str) and bool(name.strip()), "devices", f"needs names, but got {name!r}")
            if not isinstance(device, AbstractDevice):
                raise SpecError(f"devices.{name}", f"must be a device such as Cpu(), but got {device!r}")
            require("@" not in name, f"devices.{name}", "the name of a device must not contain '@'")

    def _check_objectives(self) -> None:
        require(len(self.objectives) > 0, "search.objectives", "must name at least one metric")
        keys = [reference.key for reference in self.references]
        require(len(set(keys)) == len(keys), "search.objectives", f"must be distinct, but got {keys}")

    def _check_constraints(self) -> None:
        for index, constraint in enumerate(self.constraints):
            path = f"constraints.{index}"
            metric = self.reference(constraint.metric, f"{path}.metric").metric
            low, high = metric.bounds
            if constraint.maximum is not None and constraint.maximum < low:
                raise InfeasibleError(f"{path}.maximum", f"{metric.name} is never below {low:g}; raise the bound")
            if constraint.minimum is not None and constraint.minimum > high:
                raise InfeasibleError(f"{path}.minimum", f"{metric.name} is never above {high:g}; lower the bound")

    def reference(self, text: str, path: str) -> MetricReference:
        """The metric that a text such as `latency_ms@phone` means here."""
        return metric_reference(text, tuple(self.devices), path)

    @property
    def references(self) -> tuple[MetricReference, ...]:
        """The objectives, resolved."""
        return tuple(self.reference(text, f"search.objectives.{i}") for i, text in enumerate(self.objectives))

    @property
    def directions(self) -> tuple[str, ...]:
        """What is better, for each objective."""
        return tuple(reference.metric.direction for reference in self.references)

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """The objective values of an operating point."""
        return tuple(metrics[reference.key] for reference in self.references)

    def feasible(self, metrics: Mapping[str, float]) -> bool:
        """Whether a point keeps every hard constraint."""
        return all(self.excess(c, metrics) <= 0 for c in self.constraints if c.hard)

    def excess(self, constraint: Constraint, metrics: Mapping[str, float]) -> float:
        """How far a point breaks a constraint."""
        return constraint.excess(metrics, self.reference(constraint.metric, "constraints").key)

    def excesses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """How far a point breaks each constraint, for samplers."""
        return {f"{i}:{c.metric}": self.excess(c, metrics) for i, c in enumerate(self.constraints)}

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values but for the data, of which only name and id are given."""
        data: Data = self.data
        search = {**self.strategy.to_mapping(), "objectives": list(self.objectives)}
        return {
            "search": search,
            "data": {"name": data.name, "id": data.id, "kind": data.kind, "splits": self.splits.to_mapping()},
            "space": self.space.to_mapping(),
            "devices": {name: to_dict(device) for name, device in self.devices.items()},
            "constraints": [constraint.to_mapping() for constraint in self.constraints],
            "budget": self.budget.to_mapping(),
            "cluster": self.cluster.to_mapping(),
        }

    @classmethod
    def from_mapping(cls, mapping: object, *, data: object | None = None, folder: Path | None = None) -> Problem:
        """Read a parsed TOML or JSON spec.

        Args:
            mapping: sections `search`, `data`, `space`, `devices`, `constraints`, `budget`, `cluster`, each optional.
            data: used instead of what the `data` section names.
            folder: relative files are looked up here.
        """
        if not isinstance(mapping, Mapping):
            raise SpecError("", f"a spec must be a table, but got {mapping!r}")
        for name in mapping:
            if name not in SECTIONS:
                raise UnknownNameError(str(name), str(name), SECTIONS)
        search = dict(_section(mapping, "search"))
        objectives = search.pop("objectives", ["accuracy", "latency_ms"])
        if not isinstance(objectives, list) or not all(isinstance(name, str) for name in objectives):
            raise SpecError("search.objectives", f"must be a list of metrics, but got {objectives!r}")
        section = _section(mapping, "data")
        reading = _reading(section, folder)
        devices = _section(mapping, "devices") or {"cpu": {"kind": "cpu"}}
        constraints = mapping.get("constraints", [])
        if not isinstance(constraints, list):
            raise SpecError("constraints", f"must be a list of tables, but got {constraints!r}")
        return cls(
            space=Space.from_mapping(_section(mapping, "space")),
            data=_source(section, reading, folder) if data is None else data,
            devices={name: device_from_dict(entry, f"devices.{name}") for name, entry in devices.items()},
            objectives=tuple(objectives),
            constraints=tuple(
                Constraint.from_mapping(entry, f"constraints.{i}") for i, entry in enumerate(constraints)
            ),
            budget=Budget.from_mapping(_section(mapping, "budget"), "budget"),
            splits=SplitSpec.from_mapping(section.get("splits", {}), "data.splits"),
            strategy=Strategy.from_mapping(search, "search"),
            cluster=Cluster.from_mapping(_section(mapping, "cluster"), "cluster"),
        )


def _section(mapping: Mapping[Any, Any], name: str) -> Mapping[str, Any]:
    section = mapping.get(name, {})
    if not isinstance(section, Mapping):
        raise SpecError(name, f"must be a table, but got {section!r}")
    return section


def _reading(section: Mapping[str, Any], folder: Path | None) -> Reading:
    """How a section wants its file to be read."""
    stored = ("name", "id", "kind")  # what a stored problem says of its data
    options = {name: value for name, value in section.items() if name not in ("source", "splits", *stored)}
    known = [each.name for each in fields(Reading)]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"data.{name}", name, ("source", "splits", *known))
    if folder is not None and isinstance(options.get("test"), str):
        options["test"] = str(folder / options["test"])
    return Reading.from_mapping(options, "data")


def _source(section: Mapping[str, Any], reading: Reading, folder: Path | None) -> Data:
    """The data that a section names; a file or a folder of images is looked up in the folder."""
    source = section.get("source", "digits")
    if folder is not None and isinstance(source, str) and _on_disk(source, folder):
        source = str(folder / source)
    return load_data(source, reading=reading)


def _on_disk(source: str, folder: Path) -> bool:
    return source.endswith(FILES) or (source not in EMBEDDED and (folder / source).is_dir())
