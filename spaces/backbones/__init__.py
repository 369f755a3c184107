"""The backbones. Adding one: a file here, a line in `BACKBONES`, a row in the tests."""

from ..backbone import AbstractBackbone
from ..errors import UnknownNameError
from .adopted import Adopted
from .frame_recurrent import FrameRecurrent
from .inverted_residual import InvertedResidual
from .multi_scale_dense import MultiScaleDense
from .recurrent import Recurrent
from .residual import Residual
from .text_transformer import TextTransformer
from .vision_transformer import VisionTransformer

BACKBONES: tuple[type[AbstractBackbone], ...] = (
    Residual,
    InvertedResidual,
    MultiScaleDense,
    VisionTransformer,
    Recurrent,
    FrameRecurrent,
    TextTransformer,
)


# Need a model to begin with, so no space has them by itself.
BROUGHT: tuple[type[AbstractBackbone], ...] = (Adopted,)


def backbone_type(name: str, path: str = "backbone") -> type[AbstractBackbone]:
    """The backbone of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in (*BACKBONES, *BROUGHT):
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in (*BACKBONES, *BROUGHT)])


__all__ = [
    "BACKBONES",
    "BROUGHT",
    "Adopted",
    "FrameRecurrent",
    "InvertedResidual",
    "MultiScaleDense",
    "Recurrent",
    "Residual",
    "TextTransformer",
    "VisionTransformer",
    "backbone_type",
]
