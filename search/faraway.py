"""Faraway: devices that nodes of the cluster have are measured there, and not on the driver's machine.

Two functions travel to the node. They take and give plain values; what they measure goes into the same latency table,
whose database the node must reach.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from ..evaluators.from_scratch import MANIFEST, WEIGHTS, load_candidate
from ..hardware.book import DevicePages, LatencyBook
from ..hardware.device import one_thread
from ..hardware.devices import device_from_dict
from ..hardware.drift import Shift
from ..hardware.elsewhere import Elsewhere
from ..hardware.table import LatencyTable
from ..hardware.turn import turn
from ..spaces.errors import StoreError
from ..spaces.policy import Policy
from ..spaces.signature import Signature
from ..spaces.space import Space
from . import tune
from .machine import Machines
from .outcome import measure_routed
from .profiling import Profiler

_SQLITE = "sqlite:///"
Routed = Sequence[tuple[Path, Policy]]  # folders of candidates, and how to run them


@final
@dataclass(frozen=True)
class Timed:
    """What a node measured.

    Args:
        rows: mean and p95 of each network, as `measure_routed` gives them.
        shift: how the node has changed since its table was measured, if that is known.
    """

    rows: list[dict[str, float]]
    shift: Shift | None


@final
class Faraway:
    """The devices of other nodes.

    Args:
        table_url: of the latency table, as seen from the nodes.
        on_wait: called while a node works; may raise to give up.
    """

    def __init__(self, table_url: str, *, on_wait: Callable[[], None]) -> None:
        self._table_url = table_url
        self._on_wait = on_wait

    def pages(self, space: Space, signature: Signature, device: Elsewhere, *, seed: int) -> DevicePages:
        """Measure there what the space can ask of the device and the table lacks.

        Raises:
            DeviceUnavailableError: if no node has the device, or it failed there.
        """
        task = {
            **self._about(device, seed),
            "space": space.to_mapping(),
            "signature": signature.to_mapping(),
        }
        answer = tune.on_node(device.node, profile_there, task, on_wait=self._on_wait)
        return DevicePages.from_mapping(answer["pages"])

    def times(self, routed: Routed, x: torch.Tensor, device: Elsewhere, *, seed: int, pages: DevicePages) -> Timed:
        """Run trained candidates there, in routed mode, on inputs `n x ...`.

        Raises:
            DeviceUnavailableError: if no node has the device, or it failed there.
        """
        task = {
            **self._about(device, seed),
            "candidates": [
                {name: (folder / name).read_bytes() for name in (MANIFEST, WEIGHTS)} | {"policy": policy.to_dict()}
                for folder, policy in routed
            ],
            "x": x.numpy(),
            "pages": pages.to_mapping(),
        }
        answer = tune.on_node(device.node, time_there, task, on_wait=self._on_wait)
        shift = answer["shift"]
        return Timed([dict(row) for row in answer["rows"]], None if shift is None else Shift(*shift))

    def _about(self, device: Elsewhere, seed: int) -> dict[str, Any]:
        return {"device": dict(device.options), "seed": seed, "table": self._table_url}


def profile_there(task: Mapping[str, Any]) -> dict[str, Any]:
    """On the node: fill the table for a space and give the device's pages."""
    device = device_from_dict(task["device"])
    space, signature = Space.from_mapping(task["space"]), Signature.from_mapping(task["signature"], "signature")
    with one_thread(), _table(task["table"]) as table:
        book, _ = Profiler(space, signature, table, seed=int(task["seed"])).book({"device": device})
    return {"pages": book.first[1].to_mapping()}


def time_there(task: Mapping[str, Any]) -> dict[str, Any]:
    """On the node: time candidates, and look at the machine before and after."""
    device = device_from_dict(task["device"])
    book = LatencyBook({"device": DevicePages.from_mapping(task["pages"])})
    routed = []
    for each in task["candidates"]:
        with tempfile.TemporaryDirectory(prefix="dynarch-timed-") as folder:
            for name in (MANIFEST, WEIGHTS):
                (Path(folder) / name).write_bytes(each[name])
            routed.append((load_candidate(Path(folder))[0], Policy.from_dict(each["policy"])))
    with one_thread(), _table(task["table"]) as table, turn():
        machines = Machines({"device": device}, book, table)
        machines.look()
        x, sessions = torch.from_numpy(task["x"].copy()), machines.sessions("device")
        rows = measure_routed(routed, x, device, seed=int(task["seed"]), sessions=sessions)
        machines.look()
        shift = machines.shifts().get("device")
    return {"rows": rows, "shift": None if shift is None else (shift.change, shift.noise)}


@contextmanager
def _table(url: str) -> Iterator[LatencyTable]:
    file = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE) and not file.exists():
        raise StoreError(f"this node does not see the latency table {file}; name a database server with --database")
    with LatencyTable.open(url) as table:
        yield table
