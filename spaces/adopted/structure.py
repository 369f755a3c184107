"""Structure: an adopted model without its weights, as one JSON document; and networks made of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..architecture import canonical_json, content_id
from ..backbone import Backbone
from ..errors import ShapeError, SpecError
from .leaves import leaf
from .tape import Piece, Tape

SCHEMA = 1
_KEYS = (
    "schema",
    "name",
    "shape",
    "dtype",
    "classes",
    "stem",
    "blocks",
    "names",
    "skippable",
    "stages",
    "head",
    "view",
    "least_side",
    "weights",
)
_PIECE = {"leaves": dict, "tensors": dict, "steps": list, "result": int}


@final
@dataclass(frozen=True)
class Structure:
    """What an adopted model does.

    Args:
        canonical: canonical JSON text; make it with `of`.
    """

    canonical: str

    @classmethod
    def of(cls, document: object, path: str = "structure") -> Structure:
        """The structure of a parsed document.

        Raises:
            SpecError: if it is none of this schema.
        """
        if not isinstance(document, Mapping) or set(document) != set(_KEYS):
            found = sorted(document) if isinstance(document, Mapping) else document
            raise SpecError(path, f"must have the entries {', '.join(_KEYS)}, but has {found}")
        if document["schema"] != SCHEMA:
            raise SpecError(
                f"{path}.schema", f"must be {SCHEMA}, but got {document['schema']!r}; adopt the model again"
            )
        for place, piece in (("stem", document["stem"]), ("head", document["head"]), *enumerate(document["blocks"])):
            fits = isinstance(piece, Mapping) and set(piece) == set(_PIECE)
            if not fits or not all(isinstance(piece[key], kind) for key, kind in _PIECE.items()):
                raise SpecError(f"{path}.{place}", f"must have the entries {', '.join(_PIECE)}")
        return cls(canonical_json(document, path))

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """Plain JSON values."""
        made: dict[str, Any] = json.loads(self.canonical)
        return made

    @property
    def id(self) -> str:
        """16 hexadecimal digits of structure and weights: the weights' digest is part of the document."""
        return content_id(self.document)

    @property
    def pieces(self) -> tuple[tuple[str, Piece], ...]:
        """Stem, blocks and head with their names."""
        document = self.document
        named = zip(document["names"], document["blocks"], strict=True)
        return (("stem", document["stem"]), *named, ("head", document["head"]))

    def needed(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and the dtype of each tensor that the weights must hold, by the path that it had in the model."""
        found = {}
        with torch.device("meta"):
            for name, piece in self.pieces:
                for entry in piece["leaves"].values():
                    made = leaf(entry["kind"], entry["options"], f"structure.{name}.{entry['path']}")
                    for key, tensor in made.state_dict().items():
                        found[f"{entry['path']}.{key}"] = (tuple(tensor.shape), _dtype(tensor))
                for entry in piece["tensors"].values():
                    found[entry["path"]] = (tuple(entry["shape"]), entry["dtype"])
        return found

    def check_weights(self, weights: Mapping[str, Tensor], path: str) -> None:
        """Raise unless these are the weights that this structure was adopted with.

        Raises:
            SpecError: naming the first tensor that is missing, has another shape, or is not asked for.
        """
        needed = self.needed()
        for name, (shape, dtype) in needed.items():
            if name not in weights:
                raise SpecError(f"{path}.{name}", f"must be there, {dtype} of {shape}, but is missing; adopt it again")
            found = (tuple(weights[name].shape), _dtype(weights[name]))
            if found != (shape, dtype):
                rule = f"must be {dtype} of {shape}, but is {found[1]} of {found[0]}"
                raise SpecError(f"{path}.{name}", f"{rule}; these are another model's weights")
        for name in weights:
            if name not in needed:
                raise SpecError(f"{path}.{name}", "is not asked for; these are another model's weights")
        found_digest = digest(weights)
        if found_digest != self.document["weights"]:
            rule = f"must have the digest {self.document['weights']}, but have {found_digest}"
            raise SpecError(path, f"{rule}; they were changed: put them back or adopt the model again")

    def build(self, weights: Mapping[str, Tensor], *, rate: float) -> Backbone:
        """The network, over copies of the weights.

        Args:
            weights: by the paths that they had in the model.
            rate: how fast they learn, compared with new ones; 0: frozen.
        """
        document = self.document
        owner = _Builder(weights, rate)
        made = [owner.tape(piece, f"structure.{name}") for name, piece in self.pieces]
        return Backbone(
            stem=made[0],
            blocks=list(made[1:-1]),
            stages=tuple(document["stages"]),
            head=made[-1],
            view=_TokenMean() if document["view"] == "tokens" else None,
            least_side=document["least_side"],
            raw=True,
            skippable=tuple(document["skippable"]),
        )


@final
class _Builder:
    """Makes tapes; what two pieces share in the model they share here."""

    def __init__(self, weights: Mapping[str, Tensor], rate: float) -> None:
        self._weights = weights
        self._rate = rate
        self._leaves: dict[str, nn.Module] = {}
        self._tensors: dict[str, Tensor] = {}

    def tape(self, piece: Piece, path: str) -> Tape:
        leaves = {name: self._leaf(entry, f"{path}.{name}") for name, entry in piece["leaves"].items()}
        tensors = {name: self._tensor(entry) for name, entry in piece["tensors"].items()}
        return Tape(piece, leaves=leaves, tensors=tensors, rate=self._rate, path=path)

    def _leaf(self, entry: Mapping[str, Any], path: str) -> nn.Module:
        key = canonical_json(entry)
        if key not in self._leaves:
            with torch.device("meta"):
                made = leaf(entry["kind"], entry["options"], path)
            state = {name: self._copy(f"{entry['path']}.{name}", tensor) for name, tensor in made.state_dict().items()}
            made.load_state_dict(state, assign=True)
            for weight in made.parameters():
                weight.requires_grad_(True)
            self._leaves[key] = made
        return self._leaves[key]

    def _tensor(self, entry: Mapping[str, Any]) -> Tensor:
        path = entry["path"]
        if path not in self._tensors:
            tensor = self._weights[path].clone()
            self._tensors[path] = nn.Parameter(tensor) if entry["learns"] else tensor
        return self._tensors[path]

    def _copy(self, path: str, like: Tensor) -> Tensor:
        if tuple(self._weights[path].shape) != tuple(like.shape):
            raise ShapeError(f"{path} must be {tuple(like.shape)}, but is {tuple(self._weights[path].shape)}")
        return self._weights[path].clone()


@final
class _TokenMean(nn.Module):
    """What exits and gates see of tokens: their mean, normalised; rows and images as they are."""

    def forward(self, features: Tensor) -> Tensor:
        """Features `b x n x d` -> `b x d`; others unchanged."""
        if features.dim() != 3:
            return features
        return functional.layer_norm(features.mean(1), features.shape[2:])


def digest(weights: Mapping[str, Tensor]) -> str:
    """64 hexadecimal digits of names, shapes and values."""
    made = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        made.update(json.dumps([name, list(tensor.shape), _dtype(tensor)]).encode())
        made.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return made.hexdigest()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
