"""A device of another machine: known here by its options alone; whatever needs it is done there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, final

import torch

from ..spaces.errors import DeviceUnavailableError
from .device import AbstractDevice, Environment, Statistic


@final
@dataclass(frozen=True)
class Elsewhere(AbstractDevice):
    """A device on the nodes of a cluster that carry a resource.

    Args:
        batch, threads, dtype: as of any device.
        node: the custom resource by which its nodes are known.
        options: the device as a spec on such a node would have it, `kind` included.
    """

    kind: ClassVar[str] = "elsewhere"
    statistic: ClassVar[Statistic] = "min"  # never asked here

    batch: int
    threads: int
    dtype: str
    node: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short text for people, such as `cpu b1 t1 float32 on phone`."""
        return f"{self.options['kind']} b{self.batch} t{self.threads} {self.dtype} on {self.node}"

    @property
    def torch_device(self) -> torch.device:
        """There is none here."""
        self._refuse()

    def synchronize(self) -> None:
        """Nothing runs here."""
        self._refuse()

    def environment(self) -> Environment:
        """Only its node can tell."""
        self._refuse()

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """Only its node can tell."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DeviceUnavailableError(
            f"{self.name} is not on this machine; leave its `node` out where it is, or measure it in a search"
        )
