"""The backbones. Adding one: a file here, a line in `BACKBONES`, a row in the tests."""

from ..backbone import AbstractBackbone
from ..errors import UnknownNameError
from .frame_recurrent import FrameRecurrent
from .inverted_residual import InvertedResidual
from .recurrent import Recurrent
from .residual import Residual

BACKBONES: tuple[type[AbstractBackbone], ...] = (Residual, InvertedResidual, Recurrent, FrameRecurrent)


def backbone_type(name: str, path: str = "backbone") -> type[AbstractBackbone]:
    """The backbone of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in BACKBONES:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in BACKBONES])


__all__ = ["BACKBONES", "FrameRecurrent", "InvertedResidual", "Recurrent", "Residual", "backbone_type"]
