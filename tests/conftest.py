"""What every test relies on: one thread, no telemetry, contract suites that explain their failures."""

from __future__ import annotations

import os
from pathlib import Path

os.environ |= {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # for the processes that tests start; our own threads are set below
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "RAY_ADDRESS"):
    os.environ.pop(name, None)  # a test never writes to the servers of whoever runs it

import pytest  # noqa: E402 - the environment must be clean before a library reads it
import torch  # noqa: E402

pytest.register_assert_rewrite(
    *(f"dynarch.{package}.testing" for package in ("spaces", "spaces.backbones", "hardware", "evaluators", "search"))
)
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--device`, on which the device-dependent tests run."""
    parser.addoption("--device", default="cpu", help="torch device of the device-dependent tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked `cuda` where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and this machine has none")


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
