"""The files of `examples/cluster`: each is what its reader takes, and they agree with each other and with us."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from dynarch import Cluster, Problem, load_spec
from dynarch.hardware.devices import to_dict
from dynarch.service import app
from dynarch.tests.kuberay_schema import KINDS

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "examples" / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split() if "==" in line)


@pytest.fixture(scope="module")
def ray_up() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FILES / "ray-up.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((FILES / "kuberay.yaml").read_text(encoding="utf-8"))}


# -- ray up ---------------------------------------------------------------------------------------------------


def check_ray_up(config: dict[str, Any]) -> None:
    """By the schema that Ray brings along."""
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(config)


def test_the_ray_up_file_keeps_rays_schema(ray_up: dict[str, Any]) -> None:
    check_ray_up(ray_up)


@pytest.mark.parametrize("place", ["workers", "cluster_name", "provider"])
def test_a_ray_up_file_with_a_mistake_does_not(ray_up: dict[str, Any], place: str) -> None:
    broken = {**ray_up, "workers": 2} if place == "workers" else {k: v for k, v in ray_up.items() if k != place}
    with pytest.raises(jsonschema.ValidationError, match=place):
        check_ray_up(broken)


def test_what_the_ray_up_file_installs_is_this_version(ray_up: dict[str, Any]) -> None:
    wheel = f"dynarch-{PROJECT['version']}-py3-none-any.whl"
    assert {Path(target).name: source for target, source in ray_up["file_mounts"].items()} == {
        "constraints.txt": "constraints.txt",
        wheel: f"dist/{wheel}",
    }
    assert (ROOT / "constraints.txt").is_file()
    (install,) = (line for line in ray_up["setup_commands"] if "pip install" in line)
    assert "-c ~/dynarch/constraints.txt" in install
    assert f"{wheel}[postgres]" in install


def test_no_server_of_ours_listens_to_the_world() -> None:
    """Ray's dashboard is at 127.0.0.1 unless a file says otherwise; ours do not."""
    for file in FILES.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "0.0.0.0" not in text
        assert "dashboard-host" not in text


# -- KubeRay --------------------------------------------------------------------------------------------------


def check_manifest(manifest: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(KINDS[manifest["kind"]]).validate(manifest)


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "ConfigMap", "RayJob"])
def test_a_manifest_keeps_its_schema(manifests: dict[str, dict[str, Any]], kind: str) -> None:
    check_manifest(manifests[kind])


MISTAKES: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "a number where Ray wants text": (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
    "a misspelt field": (("spec", "rayClusterSpec", "workerGroupSpec"), []),
    "a group without bounds": (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), None),
    "a container without an image": (
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "image"),
        "",
    ),
    "no entrypoint": (("spec", "entrypoint"), ""),
    "another version": (("apiVersion",), "ray.io/v1alpha1"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_manifest_with_a_mistake_does_not(manifests: dict[str, dict[str, Any]], mistake: Any) -> None:
    broken: Any = copy.deepcopy(manifests["RayJob"])
    (*way, last), value = mistake
    place = broken
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check_manifest(broken)


def test_the_manifests_name_each_other(manifests: dict[str, dict[str, Any]]) -> None:
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert (
            volumes["results"]["persistentVolumeClaim"]["claimName"]
            == (manifests["PersistentVolumeClaim"]["metadata"]["name"])
        )
        assert volumes["spec"]["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert manifests["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]  # all nodes write there
    assert cluster["rayVersion"] == PINS["ray"]


def test_the_secret_is_in_the_environment_and_nowhere_else(manifests: dict[str, dict[str, Any]]) -> None:
    job = manifests["RayJob"]["spec"]
    (container,) = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (database,) = (each for each in container["env"] if each["name"] == "DYNARCH_DATABASE")
    assert database["valueFrom"]["secretKeyRef"]["key"] == "url"
    assert "postgres" not in job["entrypoint"]


# -- specs ----------------------------------------------------------------------------------------------------


def test_the_spec_of_the_manifest_is_one_of_ours(manifests: dict[str, dict[str, Any]]) -> None:
    problem = Problem.from_mapping(tomllib.loads(manifests["ConfigMap"]["data"]["search.toml"]))
    assert problem.cluster == Cluster(ray="auto")


def test_the_example_spec_names_a_device_of_a_node() -> None:
    problem = load_spec(FILES / "search.toml")
    assert problem.cluster == Cluster(ray="auto")
    assert [to_dict(device) for device in problem.devices.values()] == [{"kind": "cpu", "node": "board"}]


def test_the_command_of_the_manifest_is_one_of_ours(manifests: dict[str, dict[str, Any]]) -> None:
    program, command, *_ = manifests["RayJob"]["spec"]["entrypoint"].split()
    assert program in PROJECT["scripts"]
    assert command in {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}
