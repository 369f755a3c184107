"""Three nodes on one machine: a search spreads over all, a node dies, and the search ends whole.

Candidates travel through a URL, as if the nodes shared no file system; the device is on one of the nodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

import dynarch
from dynarch import Cluster, Search
from dynarch.hardware.devices import device_from_dict
from dynarch.search import outcome, tune
from dynarch.search.faraway import profile_there
from dynarch.search.profiling import Profiler
from dynarch.spaces.errors import DeviceUnavailableError, StoreError
from dynarch.tests.tiny_searches import (
    PATIENCE_SECONDS,
    assert_recorded_once,
    evaluations,
    shared_service,
    shared_storage,
    tiny_problem,
    workers_below,
)

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes have the package alone, without its tests
TRIALS, EPOCHS = 7, 25


@dataclass
class Three:
    """The nodes: the first has the driver, the second the device, and the third will die."""

    nodes: Nodes
    members: list[Any]

    @property
    def at_work(self) -> list[bool]:
        """Which of them train a candidate."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.members]
        return [bool(workers_below(psutil.Process(pid))) for pid in raylets]


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Nodes(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        yield Three(nodes, [nodes.head_node, nodes.add_node(resources={"board": 1}, **small), nodes.add_node(**small)])
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bucket")


@pytest.fixture(scope="module")
def search(three: Three, bucket: Path) -> Search:
    """A search whose third node died while all three were at work."""
    board = device_from_dict({"kind": "cpu", "node": "board"})
    problem = replace(
        tiny_problem(trials=TRIALS, epochs=EPOCHS, workers=3),
        devices={"board": board},
        cluster=Cluster(ray=three.nodes.address, artefacts=f"file://{bucket}"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Profiler, "_measured"), (outcome, "measure_routed")):
            patch.setattr(owner, name, _not_here)
        launched = shared_service().launch(problem)
        start = time.monotonic()
        while not all(three.at_work):
            assert launched.running_here, launched.wait()
            assert time.monotonic() - start < PATIENCE_SECONDS
            time.sleep(0.05)
        three.nodes.remove_node(three.members[2], allow_graceful=False)
        assert launched.wait(timeout=PATIENCE_SECONDS) is not None
    return launched


def _not_here(*_: object, **__: object) -> None:
    raise AssertionError("the driver's machine was measured, and not the node with the device")


@pytest.mark.slow
def test_a_search_outlives_a_node(search: Search) -> None:
    assert_recorded_once(shared_service(), search.id, TRIALS)
    found = evaluations(shared_service(), search.id)
    assert {(each.state, each.epochs_done) for each in found} == {("finished", EPOCHS)}


@pytest.mark.slow
def test_the_front_was_timed_on_the_node_with_the_device(search: Search) -> None:
    front = search.front()
    assert front
    for point in front:
        assert point.measured is not None
        assert point.measured["board"]["latency_ms"] > 0


@pytest.mark.slow
def test_candidates_came_through_the_url_and_left_no_checkpoints(search: Search, bucket: Path) -> None:
    there = {path.name for path in bucket.glob(f"{search.id}/candidates/*/*")}
    assert there == {"candidate.json", "certify.npz", "tune.npz", "weights.safetensors"}
    assert search.front()[0].load() is not None
    assert list(search.folder.glob("candidates/*/checkpoint.pt")) == []


# -- nodes ----------------------------------------------------------------------------------------------------


def _where(task: Mapping[str, Any]) -> dict[str, Any]:
    return {"node": ray.get_runtime_context().get_node_id(), "package": dynarch.__file__, **task}


@pytest.mark.slow
def test_work_for_a_device_runs_on_its_node_with_our_code(three: Three) -> None:
    """The package that it finds there is the one that travelled, not a checkout that happens to be on the path."""
    with tune.cluster(three.nodes.address, cpus=1):
        found = tune.on_node("board", _where, {"a": 1}, on_wait=lambda: None)
        (board,) = (node["NodeID"] for node in ray.nodes() if "board" in node["Resources"])
        assert (found["node"], found["a"]) == (board, 1)
        assert "py_modules_files" in Path(found["package"]).parts
        with pytest.raises(DeviceUnavailableError, match="no node of the Ray cluster has the resource 'phone'"):
            tune.on_node("phone", _where, {}, on_wait=lambda: None)
        tune.check_nodes(str(shared_storage()))
        with pytest.raises(StoreError, match="does not see the folder /nowhere; put the storage on a file system"):
            tune.check_nodes("/nowhere")


def test_a_driver_outside_of_its_cluster_is_told_where_to_go() -> None:
    with (
        pytest.raises(StoreError, match="a driver must run on a node of its cluster"),
        tune.cluster("ray://h:1", cpus=1),
    ):
        pytest.fail("it was entered")


def test_a_table_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    task = {"device": {"kind": "cpu"}, "seed": 0, "table": f"sqlite:///{tmp_path / 'absent.db'}"}
    space, signature = tiny_problem().space, tiny_problem().data.signature
    with pytest.raises(StoreError, match="this node does not see the latency table"):
        profile_there({**task, "space": space.to_mapping(), "signature": signature.to_mapping()})
