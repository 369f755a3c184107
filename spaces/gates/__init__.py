"""Gates. Adding one: a file here, a line in `GATES`, a row in the tests."""

from ..errors import UnknownNameError
from ..gate import AbstractGate
from .convolutional import Convolutional
from .halting import Halting
from .policy_network import PolicyNetwork
from .pooled_linear import PooledLinear
from .pooled_mlp import PooledMlp
from .recurrent import Recurrent
from .spatial import Spatial

GATES: tuple[AbstractGate, ...] = (
    PooledLinear(),
    PooledMlp(),
    Convolutional(),
    Recurrent(),
    PolicyNetwork(),
    Halting(),
    Spatial(),
)


def gate(name: str, path: str = "gate") -> AbstractGate:
    """The kind of gate of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    for member in GATES:
        if member.name == name:
            return member
    raise UnknownNameError(path, name, [member.name for member in GATES])


__all__ = ["GATES", "gate"]
