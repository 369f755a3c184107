"""One measured environment and what its file looks like, for the tests of export and import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynarch.hardware.correction import Correction
from dynarch.hardware.device import Environment
from dynarch.hardware.exchange import export_table
from dynarch.hardware.keys import PartKey, key_hash
from dynarch.hardware.profile import Row
from dynarch.hardware.session import Session
from dynarch.hardware.table import LatencyTable
from dynarch.hardware.timer import Protocol, RoundTiming

QUIET = Environment((("kind", "cpu"), ("cpu_model", "made up"), ("threads", 1), ("mkl", True)))
OTHER = Environment((("kind", "cpu"), ("cpu_model", "made up"), ("threads", 2), ("mkl", True)))
E = QUIET.environment_id
STEADY = Session(
    "steady", seed=3, protocol=Protocol(rounds=2), checks=((("relu", 100),), (("relu", 101),)), finished=True
)
# 20 % between two checks is beyond the 10 % at which a session is rejected.
DRIFTED = Session("drifted", seed=4, checks=((("relu", 100),), (("relu", 120),)), load=(0.5, 0.75), finished=True)
FITTED = Correction(a=1.0625, b_ms=0.125, n=4, loo_mape=0.0625, residual_q05=0.75, residual_q95=1.25)

# Lines of the file: 1 header, 2 the drifted session, 3 the steady one, 4 and 5 parts, 6 to 11 measurements (the
# rejected one among them), 12 and 13 corrections.
HEADER, SESSION, PART, ROW, CORRECTION = 1, 3, 4, 6, 12
Edit = Callable[[dict[str, Any]], object]


def part(kind: str, op: str, macs: int) -> PartKey:
    """A part with one operation."""
    ops = ({"op": op, "in": [["float32", [1, 3]]], "out": [], "args": {"groups": 1}},)
    return PartKey(key_hash(kind, ops), kind, ops, macs, 40, ("odd.op",))


CONV = part("segment", "conv", 100)
EXIT = part("exit", "linear", 10)


def timing(min_ns: int) -> RoundTiming:
    """A visit that found eight different numbers."""
    above = [min_ns + step for step in (1, 3, 5, 7, 9)]
    return RoundTiming(15, min_ns, above[0], above[1], above[2], above[3], above[4], mad_ns=2)


def rows(key: PartKey, batch: int, *min_ns: int, first: int = 0) -> list[Row]:
    """Consecutive rounds."""
    return [Row(key, batch, first + index, timing(value)) for index, value in enumerate(min_ns)]


def measure(table: LatencyTable, environment: Environment = QUIET, prefix: str = "") -> str:
    """Fill the environment with all that an export can hold; its version."""
    steady, drifted = (
        Session(prefix + each.session_id, each.seed, each.protocol, each.checks, each.load, each.finished)
        for each in (STEADY, DRIFTED)
    )
    table.record(environment, steady, rows(CONV, 1, 2_000_000, 2_100_000) + rows(CONV, 8, 9_000_000))
    table.record(environment, steady, rows(EXIT, 1, 500_000))
    table.record(environment, steady, rows(CONV, 8, 3_000_000), density=(1, 4))
    table.record(environment, drifted, rows(EXIT, 1, 700_000, first=1))
    version = table.freeze(environment.environment_id).version
    table.put_correction("first", environment.environment_id, version, Correction().to_dict())
    table.put_correction("a later one", environment.environment_id, version, {**FITTED.to_dict(), "batch": 8})
    return version


def exported(folder: Path) -> str:
    """The file that such a table is exported to."""
    with LatencyTable.open(folder / "made.db", clock=lambda: 1_700_000_000.25) as table:
        measure(table)
        export_table(table, E, path=folder / "made.jsonl")
    return (folder / "made.jsonl").read_text()


def changed(text: str, line: int, change: Callable[[dict[str, Any]], object]) -> str:
    """The text with one line, counted from 1, changed."""
    pieces = text.split("\n")
    value = json.loads(pieces[line - 1])
    change(value)
    pieces[line - 1] = json.dumps(value)
    return "\n".join(pieces)


def written(folder: Path, text: str | bytes) -> Path:
    """The text as a file."""
    path = folder / "table.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def fingerprint(table: LatencyTable) -> object:
    """All that a latency table holds."""
    found = []
    for name in table.environments():
        contents = table.contents(name)
        found.append((contents, table.versions(name), table.describe(name)))
    return found


def setting(**values: object) -> Edit:
    """Sets fields of a line."""
    return lambda line: line.update(values)
