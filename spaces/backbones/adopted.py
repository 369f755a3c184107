"""Adopted: a trained model of the user's as a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from ..adopted import shelf
from ..backbone import AbstractBackbone, Backbone, Signature
from ..errors import ShapeError
from ..scope import Scope
from ..signature import KINDS
from ..spec import AbstractSpec, require, require_options


@final
@dataclass(frozen=True)
class AdoptedChoice(AbstractSpec):
    """One adopted model.

    Args:
        model: id of structure and weights.
        rate: how fast its weights learn, compared with new ones; 0: frozen.
    """

    model: str
    rate: float

    def check(self) -> None:
        """An id, a rate."""
        plain = len(self.model) == 16 and set(self.model) <= set("0123456789abcdef")
        require(plain, "model", f"must be 16 hexadecimal digits, but got {self.model!r}")
        require(0 <= self.rate <= 1, "rate", f"must be between 0 and 1, but got {self.rate}")


@final
@dataclass(frozen=True)
class Adopted(AbstractBackbone):
    """A trained model of the user's; made by `dynarch.adopt`.

    Args:
        folder: where it lies; its name is its id. A search that is launched keeps a copy in its storage.
        rate: how fast the adopted weights may learn, compared with new ones, to choose from; 0: they are frozen, and so
            are the statistics of their normalisation.

    Source: Kaya, Hong, Dumitras, "Shallow-Deep Networks", ICML 2019 (exits on a network that was trained without any).
    """

    name: ClassVar[str] = "adopted"
    source: ClassVar[str] = "Kaya, Hong, Dumitras, ICML 2019"
    choice_type: ClassVar[type[AbstractSpec]] = AdoptedChoice
    kinds: ClassVar[tuple[str, ...]] = KINDS

    folder: str
    rate: tuple[float, ...] = (0.0,)

    def check(self) -> None:
        """Rates present, distinct, possible; the model there."""
        require_options("rate", self.rate)
        require(min(self.rate) >= 0 and max(self.rate) <= 1, "rate", f"must be between 0 and 1, got {list(self.rate)}")
        home = Path(self.folder)
        if not (home / shelf.STRUCTURE).exists():
            home = shelf.find(self.model, "folder")  # that of another machine, or gone: a storage has kept it
            object.__setattr__(self, "folder", str(home))  # for processes that know nothing of the storage
        shelf.structure_at(home, "folder")
        shelf.add_shelf(home.parent)

    @property
    def model(self) -> str:
        """Id of structure and weights."""
        return Path(self.folder).name

    def suggest(self, scope: Scope) -> AdoptedChoice:
        """The rate."""
        return AdoptedChoice(self.model, scope.categorical("rate", self.rate))

    def extremes(self) -> tuple[AdoptedChoice, AdoptedChoice]:
        """The slowest and the fastest rate: the work is the same."""
        return AdoptedChoice(self.model, min(self.rate)), AdoptedChoice(self.model, max(self.rate))

    def size(self) -> int:
        """Rates."""
        return len(self.rate)

    @classmethod
    def build(cls, choice: AdoptedChoice, signature: Signature) -> Backbone:
        """The model with its own weights."""
        structure, weights = shelf.load(choice.model)
        document = structure.document
        fits = (tuple(document["shape"]), document["classes"]) == (signature.input_shape, signature.classes)
        if not fits or (signature.kind == "text") != (document["dtype"] != "float32"):
            takes = (
                f"{document['dtype']} inputs {tuple(document['shape'])} and tells {document['classes']} classes apart"
            )
            found = f"of kind {signature.kind}, {signature.input_shape} and {signature.classes} classes"
            kind = "text" if document["dtype"] != "float32" else "image"
            rule = f"the adopted {document['name']} takes {takes} (such as kind {kind})"
            raise ShapeError(f"{rule}, but the data is {found}; adopt it with an example of this data")
        return structure.build(weights, rate=choice.rate)

    @classmethod
    def describe(cls, choice: AdoptedChoice) -> str:
        """Such as `adopted 1f0c frozen`."""
        how = "frozen" if choice.rate == 0 else f"rate {choice.rate:g}"
        return f"{cls.name} {choice.model[:4]} {how}"
