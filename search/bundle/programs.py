"""Programs: a module as files that PyTorch and ONNX Runtime run without its code."""

from __future__ import annotations

import io
from typing import Final

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind

from ...hardware.onnx_runtime import quiet_exporters
from ...spaces.errors import SpecError
from ...spaces.exports import Program

_MANY: Final = 3  # inputs of the example of a dynamic batch; 1 and 2 are what shapes are often specialised to


def captured(program: Program, name: str, *, many: bool) -> ExportedProgram:
    """The graph of a program, at batch 1 or for any batch above.

    Raises:
        SpecError: naming the program, if PyTorch cannot export it.
    """
    examples = tuple(each.repeat(_MANY, *[1] * (each.dim() - 1)) if many else each for each in program.examples)
    shapes = tuple({0: Dim.DYNAMIC} for _ in examples) if many else None
    module = program.module.eval()
    try:
        with torch.inference_mode(False), torch.no_grad(), quiet_exporters():
            made = torch.export.export(module, examples, dynamic_shapes=shapes)
    except Exception as error:  # the exporter has no root of errors
        raise not_exportable(name, "torch.export", error) from error
    changed = [each.target for each in made.graph_signature.output_specs if each.kind is not OutputKind.USER_OUTPUT]
    if changed:
        message = (
            f"must change nothing when it runs, but changes {', '.join(map(str, changed))}; compute it anew instead"
        )
        raise SpecError(f"export.{name}", message)
    return made


def torch_file(captured_program: ExportedProgram) -> bytes:
    """The content of a `.pt2` file: tensors and JSON, no pickle."""
    captured_program._example_inputs = None  # they would be pickled
    stream = io.BytesIO()
    torch.export.save(captured_program, stream)
    return stream.getvalue()


def onnx_file(captured_program: ExportedProgram, name: str) -> bytes:
    """The content of an `.onnx` file.

    Raises:
        SpecError: naming the program, if ONNX has no operator for something in it.
    """
    try:
        with torch.inference_mode(False), torch.no_grad(), quiet_exporters():
            made = torch.onnx.export(captured_program, dynamo=True, verbose=False)
            assert made is not None
            content: bytes = made.model_proto.SerializeToString()
            return content
    except Exception as error:  # nor has this one
        raise not_exportable(name, "torch.onnx", error) from error


def not_exportable(name: str, exporter: str, error: Exception) -> SpecError:
    """What to raise if an exporter refuses a program."""
    root: BaseException = error
    while root.__cause__ is not None:  # what wraps it says at which step of the exporter it happened
        root = root.__cause__
    reason = next(iter(str(root).strip().splitlines()), type(root).__name__)
    rule = f"must be a program that {exporter} can export, but it is not ({reason})"
    remedy = "export for the other runtime only" if exporter == "torch.onnx" else "replace what branches on values"
    return SpecError(f"export.{name}", f"{rule}; {remedy}")
