"""Teacher: the static network that a candidate learns from, and what its training adds to the bill."""

from __future__ import annotations

from .architecture import Architecture
from .distillation import TEACHER
from .space import recipe_of


def teacher_of(architecture: Architecture) -> Architecture | None:
    """The network that teaches this one: the same backbone without families, trained by the same recipe from labels.

    None where nobody does, or the network itself.
    """
    distillation = recipe_of(architecture).distillation
    if distillation is None or distillation.kind != TEACHER:
        return None
    training = {**architecture.training, "distillation": None}
    return Architecture.of(backbone=architecture.backbone, families={}, training=training)


def epochs_spent(architecture: Architecture, epochs_done: int, *, full: int) -> int:
    """Epochs of training that a candidate cost: its own and, since it comes first, the whole of its teacher's.

    Args:
        architecture: of the candidate.
        epochs_done: its own epochs.
        full: epochs of a full training.
    """
    return epochs_done + (full if epochs_done and teacher_of(architecture) is not None else 0)
