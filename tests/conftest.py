"""What every test relies on: one thread, no telemetry, contract suites that explain their failures.

Also how tests are shared out where several processes run them (`make test` starts two): what costs seconds to make is
made by one process only, so tests that use it stay together.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

os.environ |= {
    "DO_NOT_TRACK": "true",
    "DYNARCH_STEADY": "0",  # tests run beside each other, and look at no time
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # for the processes that tests start; our own threads are set below
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
OURS = ("DYNARCH_DATABASE", "DYNARCH_STORAGE", "DYNARCH_TRACKING")
for name in (*OURS, "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "RAY_ADDRESS"):
    os.environ.pop(name, None)  # a test never writes to the servers of whoever runs it

import pytest  # noqa: E402 - the environment must be clean before a library reads it
import torch  # noqa: E402

pytest.register_assert_rewrite(
    *(f"dynarch.{package}.testing" for package in ("spaces", "spaces.backbones", "hardware", "evaluators", "search"))
)
torch.set_num_threads(1)

# Helper modules whose users share what is made once a process: a profiled storage and Ray, a PostgreSQL server.
# They begin, as the others can then be shared out evenly.
TOGETHER = {
    "dynarch.tests.tiny_searches": "searches",
    "dynarch.tests.search.recorded": "searches",
    "dynarch.tests.databases": "databases",
}
SPREAD = ("tests/spaces/test_contract.py",)  # long, and nothing in it is shared: each parameter goes by itself
ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--device`, on which the device-dependent tests run."""
    parser.addoption("--device", default="cpu", help="torch device of the device-dependent tests")


@cache
def group_of_file(path: str) -> str:
    """The group of its tests: that of a helper it imports, else its own."""
    text = (ROOT / path).read_text()
    return next((group for helper, group in TOGETHER.items() if f"from {helper} import" in text), path)


def group_of(nodeid: str) -> str:
    """What has the same group runs in one process, in order: a file, all users of a helper, or one parameter."""
    path, _, test = nodeid.partition("::")
    return f"{path} {test.partition('[')[2]}" if path in SPREAD and "[" in test else group_of_file(path)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist need not be there
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Shares out groups; of pytest-xdist's own marks for that this version of pytest shows nothing."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the longest groups begin."""
    first = list(dict.fromkeys(TOGETHER.values()))

    def turn(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return first.index(group) if group in first else len(first)

    items.sort(key=turn)  # stable: files stay whole


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked `cuda` where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and this machine has none")


def pytest_sessionfinish() -> None:
    """Puts away servers and folders that tests shared."""
    endings = sys.modules.get("dynarch.tests.endings")
    if endings is not None:
        endings.end()


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device asked for with `--device`."""
    chosen = torch.device(pytestconfig.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"--device {chosen} and this machine has no CUDA device")
    return chosen


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real data sets and weights, too large for the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DYNARCH_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; name one in the environment variable DYNARCH_DATA")
    return folder
