"""Adoption: a trained model of the user's becomes a backbone that a space can have."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .adopted import shelf
from .adopted.cutting import Cutter, Division
from .adopted.faithful import check_faithful, checked_copy, checked_example, checked_logits
from .adopted.sizes import least_side, resizable
from .adopted.structure import SCHEMA, Structure, digest
from .adopted.tape import Piece
from .adopted.tracing import Trace, attribute, trace
from .adopted.writing import piece_of, skippable
from .backbones.adopted import Adopted
from .errors import SpecError


def adopt(
    model: nn.Module,
    example_input: Tensor,
    *,
    blocks: Sequence[str] | None = None,
    rate: Sequence[float] = (0.0,),
    weights: Mapping[str, Tensor] | str | Path | None = None,
    folder: str | Path | None = None,
    name: str | None = None,
) -> Adopted:
    """Make a backbone of a trained model; the model itself is not changed.

    Blocks are found where one tensor alone goes from one part of the model to the next. Each piece is run beside the
    model, and the answers must be the same to the last bit.

    Args:
        model: trained, on the CPU, in float32; inputs `b x ...` -> logits `b x c`. Inputs reach it as they are in the
            data: what normalises them must be part of it.
        example_input: a few inputs `b x ...` such as those of the data; integers if they are ids.
        blocks: paths of the parts that are the blocks, such as `layer1.0`, in the order in which they run; None: found.
        rate: how fast the adopted weights may learn, compared with new ones, for the search to choose from; at 0 they
            are frozen.
        weights: a state dict, or its file, to give to the copy of the model.
        folder: where to keep the model, under its id; None: until this process ends. A search that is launched keeps a
            copy of its own.
        name: of the model, for messages; None: that of its class.

    Returns:
        A backbone for `Space(backbones=(...,))`.

    Raises:
        SpecError: naming the part of the model, or the argument, that does not suit, and what to do.
    """
    example = checked_example(example_input)
    root = checked_copy(model, weights)
    classes = checked_logits(root, example).shape[1]
    traced = trace(root, example)
    division = Cutter(traced).divide(_listed(blocks))
    kept = _weights(traced)
    document = _document(traced, division, example, classes, _title(name, model))
    needed = Structure.of(document).needed()
    held = {path: tensor for path, tensor in kept.items() if path in needed}
    document["weights"] = digest(held)
    built = Structure.of(document).build(held, rate=0.0).eval()
    check_faithful(root, traced, division, built, example)
    if resizable([document["stem"], *document["blocks"], document["head"]]):
        document["least_side"] = least_side(root, [built.stem, *built.blocks, built.head], example)
    structure = Structure.of(document)
    home = shelf.put(_temporary() if folder is None else Path(folder), structure, held)
    return Adopted(str(home), tuple(rate))


def _listed(blocks: object) -> Sequence[str] | None:
    if blocks is None:
        return None
    fits = (
        isinstance(blocks, Sequence) and not isinstance(blocks, str) and all(isinstance(each, str) for each in blocks)
    )
    if not fits:
        raise SpecError("blocks", f"must be a list of paths such as 'layer1.0', but got {blocks!r}")
    return list(blocks)  # type: ignore[call-overload, no-any-return]


def _document(traced: Trace, division: Division, example: Tensor, classes: int, name: str) -> dict[str, Any]:
    shapes = [traced.facts[traced.nodes[block.last]].shape or () for block in division.blocks]
    pieces: list[Piece] = [piece_of(traced, stretch) for stretch in division.blocks]
    stem = dict(piece_of(traced, division.stem))
    if not example.is_floating_point():  # data comes as float32
        stem = _casting(stem, str(example.dtype).removeprefix("torch."))
    return {
        "schema": SCHEMA,
        "name": name,
        "shape": list(example.shape[1:]),
        "dtype": str(example.dtype).removeprefix("torch."),
        "classes": classes,
        "stem": stem,
        "blocks": pieces,
        "names": [block.name for block in division.blocks],
        "skippable": [skippable(piece) for piece in pieces],
        "stages": [len(list(group)) for _, group in groupby(shapes)],
        "head": piece_of(traced, division.head),
        "view": "tokens" if any(len(shape) == 2 for shape in shapes) else "features",
        "least_side": None,
        "weights": "",
    }


def _casting(piece: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The same piece behind a cast of its input: every slot moves by one."""

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: each + 1 if key == "slot" else moved(each) for key, each in value.items()}
        return [moved(each) for each in value] if isinstance(value, list) else value

    cast = ["call", "method.to", [{"slot": 0}, {"dtype": dtype}], {}]
    steps = [[*step[:2], *(moved(each) for each in step[2:])] for step in piece["steps"]]
    return {**piece, "steps": [cast, *steps], "result": piece["result"] + 1}


def _weights(traced: Trace) -> dict[str, Tensor]:
    """Every tensor of the model by its path, and what the trace found beside them."""
    held = {name: tensor.detach() for name, tensor in traced.root.state_dict(keep_vars=True).items()}
    for node in traced.graph_nodes("get_attr"):
        value = attribute(traced.root, str(node.target))
        if isinstance(value, Tensor):
            held[str(node.target)] = value.detach()
    return {name: tensor.clone().contiguous() for name, tensor in held.items()}


def _title(name: str | None, model: nn.Module) -> str:
    return name or re.sub("[^a-z0-9]+", "_", type(model).__name__.lower()).strip("_") or "model"


@cache
def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="dynarch-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
