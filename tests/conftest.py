"""What every test relies on: one thread, no telemetry, contract suites that explain their failures.

Also how tests are shared out where several processes run them (`make test` starts two): what costs seconds to make is
made by one process only, so tests that use it stay together.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--device`, on which the device-dependent tests run."""
    parser.addoption("--device", default="cpu", help="torch device of the device-dependent tests")


def group_of(item: pytest.Item) -> str:
    """What has the same group runs in one process, in order: a file, all users of a helper, or one parameter."""
    path, module = item.location[0].replace(os.sep, "/"), getattr(item, "module", None)
    imported = {getattr(value, "__module__", None) for value in vars(module).values()}
    for helper, group in TOGETHER.items():
        if helper in imported:
            return group
    call = getattr(item, "callspec", None)
    return f"{path} {call.id}" if path in SPREAD and call is not None else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Names the groups for pytest-xdist, which need not be there, and lets the longest ones begin."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    first = list(dict.fromkeys(TOGETHER.values()))

    def turn(item: pytest.Item) -> int:
        group = group_of(item)
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
