"""What KubeRay takes, as far as our manifest uses it: every field that is not named here is refused.

Written from the fields of the resource definitions of KubeRay (ray-operator/config/crd/bases, group `ray.io`, version
`v1`) and of the Kubernetes API (`core/v1`), which would take more.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string"},
}  # `rayStartParams` are text, even numbers
AMOUNTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+(m|Ki|Mi|Gi|Ti)?$"},
}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}


def table(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields and no others."""
    fields = {**required, **(optional or {})}
    return {"type": "object", "properties": fields, "required": sorted(required), "additionalProperties": False}


def rows(of: Schema, *, least: int = 0) -> Schema:
    """A list."""
    return {"type": "array", "items": of, "minItems": least}


KEY = table({"name": NAME, "key": TEXT}, {"optional": FLAG})
SOURCE = table({}, {"secretKeyRef": KEY, "configMapKeyRef": KEY})
VARIABLE = {
    **table({"name": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}}, {"value": TEXT, "valueFrom": SOURCE}),
    "oneOf": [{"required": ["value"]}, {"required": ["valueFrom"]}],
}
MOUNT = table({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}}, {"readOnly": FLAG, "subPath": TEXT})
CONTAINER = table(
    {"name": NAME, "image": TEXT},
    {
        "env": rows(VARIABLE),
        "resources": table({}, {"requests": AMOUNTS, "limits": AMOUNTS}),
        "volumeMounts": rows(MOUNT),
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    },
)
VOLUME = table(
    {"name": NAME},
    {"persistentVolumeClaim": table({"claimName": NAME}, {"readOnly": FLAG}), "configMap": table({"name": NAME})},
)
POD = table(
    {"spec": table({"containers": rows(CONTAINER, least=1)}, {"volumes": rows(VOLUME), "nodeSelector": TEXTS})},
    {"metadata": table({}, {"labels": TEXTS, "annotations": TEXTS})},
)
HEAD = table({"template": POD}, {"rayStartParams": TEXTS, "resources": TEXTS, "labels": TEXTS})
WORKERS = table(
    {"groupName": NAME, "minReplicas": COUNT, "maxReplicas": COUNT, "template": POD},
    {"replicas": COUNT, "rayStartParams": TEXTS, "numOfHosts": COUNT, "resources": TEXTS, "labels": TEXTS},
)
CLUSTER = table(
    {"headGroupSpec": HEAD},
    {
        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "authOptions": table({"mode": {"enum": ["disabled", "token"]}}),
        "workerGroupSpecs": rows(WORKERS),
        "enableInTreeAutoscaling": FLAG,
    },
)
JOB = table(
    {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
    {
        "shutdownAfterJobFinishes": FLAG,
        "ttlSecondsAfterFinished": COUNT,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "backoffLimit": COUNT,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "runtimeEnvYAML": TEXT,
        "suspend": FLAG,
    },
)
META = table({"name": NAME}, {"namespace": NAME, "labels": TEXTS})


def kind(version: str, name: str, rest: dict[str, Schema]) -> Schema:
    """A resource of Kubernetes."""
    return table({"apiVersion": {"const": version}, "kind": {"const": name}, "metadata": META, **rest})


KINDS: dict[str, Schema] = {
    "RayJob": kind("ray.io/v1", "RayJob", {"spec": JOB}),
    "RayCluster": kind("ray.io/v1", "RayCluster", {"spec": CLUSTER}),
    "ConfigMap": kind("v1", "ConfigMap", {"data": TEXTS}),
    "PersistentVolumeClaim": kind(
        "v1",
        "PersistentVolumeClaim",
        {
            "spec": table(
                {
                    "accessModes": rows({"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]}, least=1),
                    "resources": table({"requests": AMOUNTS}),
                },
                {"storageClassName": NAME},
            )
        },
    ),
}
