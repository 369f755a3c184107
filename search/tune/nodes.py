"""What must run on a certain node of the cluster: measuring on the device that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...spaces.errors import DeviceUnavailableError, DynarchError, StoreError

TICK_SECONDS: Final = 0.5  # between two looks whether anybody wants an end
RETRIES: Final = 2  # of a node that died and came back
Work = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def on_node(resource: str, work: Work, task: Mapping[str, Any], *, on_wait: Callable[[], None]) -> Mapping[str, Any]:
    """Run a function on a node that has a custom resource; one at a time for each unit of it.

    Args:
        resource: name of the resource.
        work: a function of this package; its argument and its result are plain values.
        task: the argument.
        on_wait: called again and again; may raise to give up.

    Raises:
        DeviceUnavailableError: if no node has the resource, the work failed there, or the node died.
    """
    if ray.cluster_resources().get(resource, 0) < 1:
        raise DeviceUnavailableError(
            f"no node of the Ray cluster has the resource {resource!r}; start one with:"
            f" ray start --address=HEAD --resources='{{\"{resource}\": 1}}'"
        )
    remote = ray.remote(num_cpus=1, resources={resource: 1}, max_retries=RETRIES)(_guarded)
    pending = remote.remote(work, dict(task))
    try:
        while not ray.wait([pending], timeout=TICK_SECONDS)[0]:
            on_wait()
        answer: Mapping[str, Any] = ray.get(pending)
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise DeviceUnavailableError(f"the node with {resource!r} did not answer: {reason}; look at it") from error
    except BaseException:
        ray.cancel(pending, force=True)
        raise
    if "error" in answer:
        raise DeviceUnavailableError(f"on the node with {resource!r}: {answer['error']}")
    return answer


def _guarded(work: Work, task: Mapping[str, Any]) -> Mapping[str, Any]:
    """Errors of ours come back as text: they are for the user, and need no traceback."""
    try:
        return work(task)
    except DynarchError as error:
        return {"error": str(error)}


def check_nodes(folder: str | None) -> None:
    """See that every node of the cluster can take part in a search.

    Args:
        folder: the search's folder, which every node must see; None if workers do not write there.

    Raises:
        StoreError: if a node does not see it, or has other versions of what results depend on.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    here = _look(folder)
    asked = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeManagerHostname"], node["NodeID"]] = (
            ray.remote(num_cpus=0, max_retries=1)(_look).options(scheduling_strategy=place).remote(folder)
        )
    for (host, _), pending in asked.items():
        try:
            there: Mapping[str, Any] = ray.get(pending)
        except RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise StoreError(f"node {host} cannot run dynarch: {reason}; install its dependencies there") from error
        for name, version in here.items():
            if name != "sees" and there[name] != version:
                raise StoreError(
                    f"all nodes must have the same versions, but node {host} has {name} {there[name]} and the driver"
                    f" {version}; install what constraints.txt pins"
                )
        if not there["sees"]:
            raise StoreError(
                f"node {host} does not see the folder {folder}; put the storage on a file system that all nodes share,"
                " or name an artefact URL"
            )


def _look(folder: str | None) -> dict[str, Any]:
    """What a node has."""
    versions = {"torch": str(torch.__version__), "numpy": np.__version__}
    return {"sees": folder is None or Path(folder).is_dir(), **versions}
