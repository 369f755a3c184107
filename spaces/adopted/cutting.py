"""Cutting: where a model can be taken apart, and what its stem, its blocks and its head are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import fx, nn

from ..errors import SpecError, UnknownNameError
from .calls import call_name, method_name, plain
from .tracing import Trace

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_HEAVY = frozenset(
    """
    conv1d conv2d conv3d convtranspose1d convtranspose2d linear bilinear embedding multiheadattention gru lstm
    conv_transpose1d conv_transpose2d addmm matmul mm bmm einsum
    """.split()  # noqa: SIM905
)
_ACTIVATIONS = frozenset(
    """
    relu relu6 leaky_relu leakyrelu elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid prelu
    """.split()  # noqa: SIM905
)


@final
@dataclass(frozen=True)
class Stretch:
    """Operations in a row.

    Args:
        first, last: numbers of the first and the last of them.
        name: of the part that they are, or begin with.
    """

    first: int
    last: int
    name: str


@final
@dataclass(frozen=True)
class Division:
    """A model taken apart; the stem may be empty (`last` before `first`)."""

    stem: Stretch
    blocks: tuple[Stretch, ...]
    head: Stretch


@final
class Cutter:
    """Knows the cuts of a trace.

    Args:
        trace: of the model.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.nodes = trace.nodes
        number = {node: index for index, node in enumerate(self.nodes)}
        number[trace.source] = -1
        last_use = dict.fromkeys(number, -1)
        for node in self.nodes:
            for given in node.all_input_nodes:
                if given in number:
                    last_use[given] = max(last_use[given], number[node])
        last_use[trace.result] = len(self.nodes)
        self.crossing = [
            [node for node, at in number.items() if at <= index < last_use[node]] for index in range(len(self.nodes))
        ]
        self.cuts = {index for index in range(len(self.nodes)) if self._is_cut(index)} | {-1}
        self._spans: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for path in trace.paths(node):
                self._spans[path].append(index)

    def _is_cut(self, index: int) -> bool:
        fact = self.trace.facts[self.nodes[index]]
        alone = self.crossing[index] == [self.nodes[index]]
        return alone and fact.shape is not None and fact.floating

    def span(self, path: str) -> Stretch | None:
        """The operations of a part, if they stand in a row between two cuts."""
        found = self._spans.get(path, [])
        if not found or found[-1] - found[0] + 1 != len(found):
            return None
        whole = found[0] - 1 in self.cuts and found[-1] in self.cuts
        return Stretch(found[0], found[-1], path) if whole else None

    def divide(self, blocks: Sequence[str] | None) -> Division:
        """Stem, blocks and head.

        Raises:
            SpecError: if the model cannot be taken apart as asked for.
        """
        if not self.cuts - {-1, len(self.nodes) - 1}:
            between = max(self.crossing[:-1], key=len, default=[])
            names = ", ".join(node.name for node in between[:3]) or "nothing"
            rule = "must have places that one tensor alone crosses, but everywhere cross"
            raise SpecError("model", f"{rule} {names}; adopt a part of it, or join them into one tensor")
        spans = self._units() if blocks is None else self._named(blocks)
        return self._around(spans, named=blocks is not None) if spans else self._grouped()

    def _named(self, blocks: Sequence[str]) -> list[Stretch]:
        if not blocks:
            raise SpecError("blocks", "must name at least one part of the model; leave it out to have them found")
        known = [name for name, _ in self.trace.root.named_modules() if name]
        spans: list[Stretch] = []
        for index, path in enumerate(blocks):
            place = f"blocks.{index}"
            if path not in known:
                raise UnknownNameError(place, path, known)
            if not self._spans.get(path):
                raise SpecError(place, f"{path!r} must be a part that runs, but the model does not call it")
            span = self.span(path)
            if span is None:
                raise SpecError(place, f"{path!r} {self._why_not(path)}")
            if spans and span.first <= spans[-1].last:
                rule = f"{path!r} must come after {spans[-1].name!r} and share nothing with it"
                raise SpecError(place, f"{rule}; name parts in the order in which they run")
            spans.append(span)
        return spans

    def _why_not(self, path: str) -> str:
        found = self._spans[path]
        if found[-1] - found[0] + 1 != len(found):
            return "must run once and in one go, but other parts run in between; name a part that holds them all"
        edge = found[0] - 1 if found[0] - 1 not in self.cuts else found[-1]
        names = ", ".join(node.name for node in self.crossing[edge][:4])
        side = "goes in" if edge == found[0] - 1 else "comes out"
        shape = self.trace.facts[self.nodes[edge]].shape
        rule = f"must have one tensor `b x ...` of floats that {side}, but there cross {names} ({shape})"
        return f"{rule}; name a part that holds what crosses"

    def _units(self) -> list[Stretch]:
        """The smallest parts that repeat and lie between cuts; see `docs/architecture.md`."""
        units: dict[str, Stretch] = {}
        for path, module in self.trace.root.named_modules():
            span = self.span(path) if path and self._is_unit(module) else None
            if span is not None:
                units[path] = span
        kinds = {path: type(self.trace.root.get_submodule(path)) for path in units}
        listed = [p for p in units if isinstance(self.trace.root.get_submodule(p.rpartition(".")[0]), _CONTAINERS)]
        holding = {path for path in units if any(other.startswith(f"{path}.") for other in listed)}
        whole = {kind for path, kind in kinds.items() if path not in holding}
        chosen = [path for path in units if kinds[path] in whole]
        outer = [path for path in chosen if not any(path.startswith(f"{other}.") for other in chosen)]
        return sorted((units[path] for path in outer), key=lambda span: span.first)

    def _is_unit(self, module: nn.Module) -> bool:
        inner = next(module.children(), None) is not None or next(module.parameters(recurse=False), None) is not None
        own = not isinstance(module, _CONTAINERS) and not type(module).__module__.startswith("torch.nn.modules")
        return own and inner and next(module.parameters(), None) is not None

    def _around(self, spans: list[Stretch], *, named: bool) -> Division:
        """What lies between two blocks belongs to the first of them; parts with weights of their own stay apart."""
        pieces: list[Stretch] = []
        for span in spans:
            if pieces and pieces[-1].last < span.first - 1:
                gap = Stretch(pieces[-1].last + 1, span.first - 1, "")
                groups = [] if named else self._groups(gap)
                pieces[-1] = Stretch(pieces[-1].first, groups[0].first - 1 if groups else gap.last, pieces[-1].name)
                pieces += groups
            pieces.append(span)
        end, start = len(self.nodes) - 1, pieces[0].first
        if pieces[-1].last == end and not named:
            *pieces, head = pieces
        else:
            head = Stretch(pieces[-1].last + 1, end, "the head")
        if head.first > end:
            raise SpecError("blocks", "must leave something for the head that makes the logits; name one block less")
        if start == 0 and not named and len(pieces) > 2:
            stem, *pieces = pieces
        else:
            stem = Stretch(0, start - 1, "the stem")
        return Division(stem, tuple(pieces), head)

    def _grouped(self) -> Division:
        """Layers with weights, each with what follows it; the last one is the head, with pooling before it."""
        pieces = self._groups(Stretch(0, len(self.nodes) - 1, ""), leading=True)
        if len(pieces) < 2:
            raise SpecError("model", f"must have at least two layers with weights in a row, but has {len(pieces)}")
        *pieces, head = pieces
        before, first = pieces[-1], head.first
        light = [index for index in range(before.first, before.last) if index in self.cuts]
        for index in reversed(light):  # pooling and flattening behind the last activation go with the head
            if any(self._operation(node) in _ACTIVATIONS for node in self.nodes[index + 1 : first]):
                break
            if any(self._heavy(node) for node in self.nodes[before.first : index + 1]):
                first = index + 1
        pieces[-1] = Stretch(before.first, first - 1, before.name)
        stem = Stretch(0, -1, "the stem")
        if len(pieces) > 2:
            stem, *pieces = pieces
        return Division(stem, tuple(pieces), Stretch(first, head.last, "the head"))

    def _groups(self, gap: Stretch, *, leading: bool = False) -> list[Stretch]:
        """A stretch by its heavy layers, what comes before the first of them left out unless it is `leading`."""
        starts: list[int] = []
        for index in range(gap.first, gap.last + 1):
            if index - 1 in self.cuts:
                stop = next(each for each in range(index, gap.last + 1) if each in self.cuts or each == gap.last)
                if any(self._heavy(node) for node in self.nodes[index : stop + 1]):
                    starts.append(index)
        if leading and starts:
            starts[0] = gap.first
        ends = [*(start - 1 for start in starts[1:]), gap.last]
        return [Stretch(a, b, self._label(a, b)) for a, b in zip(starts, ends, strict=False)]

    def _label(self, first: int, last: int) -> str:
        heavy = next((node for node in self.nodes[first : last + 1] if self._heavy(node)), self.nodes[first])
        return (self.trace.paths(heavy) or (heavy.name,))[-1]

    def _operation(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.trace.root.get_submodule(str(node.target))).__name__.lower()
        name = method_name(str(node.target)) if node.op == "call_method" else call_name(node.target)
        return plain(name) if name else ""

    def _heavy(self, node: fx.Node) -> bool:
        return self._operation(node) in _HEAVY
