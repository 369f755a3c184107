"""The cluster: one that is there, or a small one that is started here and stopped again."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # results are in the ledger and in MLflow
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the service handles Ctrl-C
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # of notes from which nobody goes on
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which prints a banner whatever its verbosity

import ray
from ray._private import ray_constants, services

from ...spaces.errors import StoreError
from .package import stage

OBJECT_STORE_BYTES = 300 * 2**20
CLIENT = "ray://"
CONNECT_SECONDS = 10.0


@contextmanager
def cluster(address: str | None, *, cpus: int) -> Iterator[None]:
    """Connect to a Ray cluster; without an address, start a small one here and stop it afterwards.

    This package travels to the nodes of a cluster that was there before, whatever is installed on them; what it
    depends on must be installed. Whoever has connected this process already has decided about that.

    Args:
        address: None, "auto", or `host:port` of the head node.
        cpus: of the local cluster.

    Raises:
        StoreError: if there is no cluster at the address, or the address is of a kind that cannot be used.
    """
    if address is not None and address.startswith(CLIENT):
        raise StoreError(
            f"a driver must run on a node of its cluster, but {address!r} leads there from outside; start it on a node"
            " with --ray auto, for example by: ray job submit -- dynarch search SPEC --ray auto"
        )
    with tempfile.TemporaryDirectory(prefix="dynarch-package-") as folder:
        mine = not ray.is_initialized()
        if mine:
            _connect(address, cpus, Path(folder))
        try:
            yield
        finally:
            if mine:
                ray.shutdown()


def _connect(address: str | None, cpus: int, folder: Path) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            with _loopback():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **quiet,
                )
        else:
            _answers(address)
            ray.init(address=address, runtime_env={"py_modules": [str(stage(folder))]}, **quiet)
    except Exception as error:  # Ray raises a bare one where a node of its own does not come up in time
        ray.shutdown()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if address is None:
            raise StoreError(f"Ray did not start here ({reason}); see that memory and processor are free") from error
        raise StoreError(f"no Ray cluster at {address!r} ({reason}); start one or leave `ray` out") from None


def _answers(address: str) -> None:
    """Raise ConnectionError unless something listens there.

    Ray would try for half an hour, and "auto" is the last cluster that was started here, even if that was killed.
    """
    found = services.canonicalize_bootstrap_address(address)
    if found is None:
        return  # it says so itself, at once
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at {found}: {error.strerror or error}") from None


@contextmanager
def _loopback() -> Iterator[None]:
    """Have the servers of a cluster that is started now listen on 127.0.0.1; Ray has a switch for that, but for a
    platform only."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
