"""Faithful: what is adopted must be a model that can be, and what was made of it must give what it gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..backbone import Backbone
from ..errors import SpecError
from .cutting import Division
from .tracing import BATCHES, Trace, rows_of


def checked_example(example: object) -> Tensor:
    """Inputs `b x ...` on the CPU, float32 or integers.

    Raises:
        SpecError: if they are none.
    """
    if not isinstance(example, Tensor):
        rule = "must be one tensor `b x ...` of inputs as the model takes them"
        raise SpecError("example_input", f"{rule}, but got {type(example).__name__}")
    if example.dim() < 2 or len(example) == 0:
        raise SpecError("example_input", f"must be `b x ...` with b >= 1, but has the shape {tuple(example.shape)}")
    if example.dtype not in (torch.float32, torch.int64, torch.int32):
        raise SpecError("example_input", f"must be float32, or int64 for ids, but is {example.dtype}; convert it")
    if example.device.type != "cpu":
        raise SpecError("example_input", f"must lie on the CPU, but lies on {example.device}; pass example_input.cpu()")
    return example.detach()


def checked_copy(model: object, weights: object) -> nn.Module:
    """A copy of the model in evaluation mode, with these weights if some are given.

    Raises:
        SpecError: if it is no module, lies elsewhere, is in another precision, or the weights are not its own.
    """
    if not isinstance(model, nn.Module):
        raise SpecError("model", f"must be a torch.nn.Module, but got {type(model).__name__}; pass an instance")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != "cpu":
            remedy = "pass model.cpu()" if tensor.device.type != "meta" else "load its weights first"
            raise SpecError(f"model.{name}", f"must lie on the CPU, but lies on {tensor.device}; {remedy}")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise SpecError(f"model.{name}", f"must be float32, but is {tensor.dtype}; pass model.float()")
    if next(model.parameters(), None) is None:
        raise SpecError("model", "must have weights, but has none; pass a trained model")
    try:
        made = copy.deepcopy(model).eval()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpecError("model", f"must be a module that copy.deepcopy copies, but it fails ({reason})") from None
    if weights is not None:
        _load(made, weights)
    return made


def _load(model: nn.Module, weights: object) -> None:
    state = _read(weights)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, more = [n for n in own if n not in state], [n for n in state if n not in own]
    prefixed = [name for name in more if name.partition(".")[2] in own]
    hint = "; their names have a prefix more: strip it" if prefixed else "; they are another model's"
    for name in missing or more:
        rule = "is missing" if missing else "is not asked for"
        found = ", ".join(more[:2]) or "nothing else"
        raise SpecError(f"weights.{name}", f"{rule} (there is {found}){hint}")
    for name, shape in own.items():
        if tuple(state[name].shape) != shape:
            raise SpecError(f"weights.{name}", f"must be {shape}, but is {tuple(state[name].shape)}{hint}")
    model.load_state_dict(state)


def _read(weights: object) -> Mapping[str, Tensor]:
    if isinstance(weights, str | Path):
        try:
            if str(weights).endswith(".safetensors"):
                return load_file(weights)  # type: ignore[no-any-return]
            weights = torch.load(weights, map_location="cpu", weights_only=True)
        except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise SpecError("weights", f"must be a file of tensors, but reading it failed ({reason})") from None
        except Exception as error:  # torch's name for a pickle with code in it is its own
            raise SpecError(
                "weights", f"must be a file of tensors alone, but holds more ({type(error).__name__})"
            ) from None
    if isinstance(weights, Mapping) and isinstance(weights.get("state_dict"), Mapping):
        weights = weights["state_dict"]
    if not isinstance(weights, Mapping) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise SpecError("weights", f"must be a state dict or its file, but got {type(weights).__name__}")
    return weights


def checked_logits(model: nn.Module, example: Tensor) -> Tensor:
    """What the model says of the example, `b x c`.

    Raises:
        SpecError: if it says anything else, or something else each time.
    """
    try:
        with torch.no_grad():
            made, again = model(example.clone()), model(example.clone())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        shape = tuple(example.shape)
        raise SpecError("example_input", f"must be what the model takes, but it fails on {shape} ({reason})") from None
    if not isinstance(made, Tensor):
        made, again = _single(made), _single(again)
    if made.dim() != 2 or len(made) != len(example) or made.shape[1] < 2 or not made.is_floating_point():
        rule = f"must give logits `b x c` with c >= 2 for {len(example)} inputs, but gives {tuple(made.shape)}"
        raise SpecError("model", f"{rule}; wrap it to return one row of logits an input")
    if not torch.equal(made, again):
        raise SpecError(
            "model", "must give the same answer twice in evaluation mode, but does not; remove what is random"
        )
    return made


def _single(made: object) -> Tensor:
    """The one tensor in what a model returns."""
    values = list(made.values()) if isinstance(made, Mapping) else list(made) if isinstance(made, tuple | list) else []
    found = [each for each in values if isinstance(each, Tensor)]
    if len(values) != 1 or len(found) != 1:
        what = sorted(made) if isinstance(made, Mapping) else type(made).__name__
        raise SpecError(
            "model", f"must give one tensor of logits, but gives {what}; wrap it to return the logits alone"
        )
    return found[0]


@torch.no_grad()
def check_faithful(model: nn.Module, trace: Trace, division: Division, built: Backbone, example: Tensor) -> None:
    """Raise unless every piece gives what the model has there, to the last bit, on several inputs.

    Raises:
        SpecError: naming the first part that differs.
    """
    stretches = (division.stem, *division.blocks, division.head)
    pieces = (built.stem, *built.blocks, built.head)
    ends = [trace.nodes[stretch.last] if stretch.last >= stretch.first else trace.source for stretch in stretches]
    for x in _inputs(example):
        features = x.float()
        for stretch, piece, expected in zip(stretches, pieces, trace.at(ends, x), strict=True):
            features = _checked(piece, features, expected.float(), f"model.{stretch.name}")
        answer = model(x.clone())
        answer = answer if isinstance(answer, Tensor) else _single(answer)
        if not torch.equal(features, answer):
            found = _difference(features, answer)
            raise SpecError(_culprit(model, trace, x), f"must run the same for every input, but {found}")


def _checked(piece: nn.Module, features: Tensor, expected: Tensor, place: str) -> Tensor:
    before = features.clone()
    made: Tensor = piece(features)
    if not torch.equal(before, features):
        raise SpecError(place, "must leave its input alone, but changes it in place; use inplace=False")
    if not torch.equal(made.float(), expected):
        raise SpecError(place, f"must give the same when taken apart, but {_difference(made, expected)}")
    return made


def _inputs(example: Tensor) -> Sequence[Tensor]:
    """The example, one input of it, the example back to front (and dimmed), which may take other branches; a batch."""
    turned = example.flip(-1)
    return (
        example,
        rows_of(example, 1),
        turned if not turned.is_floating_point() else -0.5 * turned,
        rows_of(example, BATCHES[1]),
    )


def _difference(made: Tensor, expected: Tensor) -> str:
    if made.shape != expected.shape:
        return f"gives {tuple(made.shape)} in place of {tuple(expected.shape)}"
    return f"differs by up to {float((made.double() - expected.double()).abs().max()):.2g}"


def _culprit(model: nn.Module, trace: Trace, x: Tensor) -> str:
    """The first part of the model whose output is not what the trace has for it."""
    last = {path: node for node in trace.nodes for path in trace.paths(node)}
    seen: list[tuple[str, Tensor]] = []

    def watch(path: str) -> object:
        def note(_module: nn.Module, _given: object, made: object) -> None:
            if isinstance(made, Tensor):
                seen.append((path, made.clone()))

        return model.get_submodule(path).register_forward_hook(note)

    handles = [watch(path) for path in last]
    model(x.clone())
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    values = trace.at([last[path] for path, _ in seen], x)
    for (path, made), value in zip(seen, values, strict=True):
        if isinstance(value, Tensor) and not torch.equal(made, value):
            return f"model.{path}"
    return "model"
