"""The latency table on SQLite and PostgreSQL: append-only, by environment, versioned by content."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.hardware.device import Environment
from dynarch.hardware.keys import PartKey
from dynarch.hardware.profile import ProfileStore, Row
from dynarch.hardware.session import Session
from dynarch.hardware.table import Entry, LatencyTable, TableVersion
from dynarch.hardware.table.entities import variance
from dynarch.hardware.timer import Protocol, RoundTiming
from dynarch.spaces.errors import MissingEntryError, StoreError
from dynarch.tests.databases import BACKENDS, fresh_url

QUIET = Environment((("kind", "cpu"), ("threads", 1), ("mkl", True)))
OTHER = Environment((("kind", "cpu"), ("threads", 2), ("mkl", True)))
E = QUIET.environment_id
CONV = PartKey("c" * 24, "segment", ({"op": "conv", "in": [["float32", [1, 3]]]},), 100, 40, ("odd.op",))
EXIT = PartKey("e" * 24, "exit", ({"op": "linear"},), 10, 4)
STEADY = Session("steady", seed=3, protocol=Protocol(rounds=2), finished=True)
# 20 % between two checks is beyond the 10 % at which a session is rejected.
DRIFTED = replace(STEADY, session_id="drifted", checks=((("relu", 100),), (("relu", 120),)), load=(0.5, 0.75))


@pytest.fixture(params=BACKENDS)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LatencyTable]:
    ticks = count(1000)
    with LatencyTable.open(fresh_url(request.param, tmp_path), clock=lambda: float(next(ticks))) as opened:
        yield opened


def timing(min_ns: int, median_ns: int | None = None, mad_ns: int = 0) -> RoundTiming:
    median = median_ns or min_ns
    return RoundTiming(
        n=15,
        min_ns=min_ns,
        p10_ns=min_ns,
        median_ns=median,
        mean_ns=median,
        p90_ns=median,
        max_ns=median,
        mad_ns=mad_ns,
    )


def rows(key: PartKey, batch: int, *min_ns: int, first: int = 0) -> list[Row]:
    return [Row(key, batch, first + index, timing(value)) for index, value in enumerate(min_ns)]


def test_it_is_the_store_that_profiling_asks_for(table: LatencyTable) -> None:
    store: ProfileStore = table  # which the type checker verifies
    store.record(QUIET, STEADY, rows(CONV, 1, 5_000_000))
    assert store.visited([CONV.hash], E, [1, 4]) == {(CONV.hash, 1): {"steady": 1}}


def test_the_value_is_the_best_round(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 3_000_000, 2_000_000, 4_000_000) + rows(EXIT, 1, 500_000))
    # Rounds of 3, 2 and 4 ms: mean 3, sample variance (0 + 1 + 1) / 2 = 1, so relsd = 1/3.
    assert table.entries(E, [CONV.hash, EXIT.hash], [1]) == {
        (CONV.hash, 1): Entry(ms=2.0, relsd=1 / 3, n_rounds=3),
        (EXIT.hash, 1): Entry(ms=0.5, relsd=0.0, n_rounds=1),
    }


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # One process: the sample variance, here (1 + 0 + 1) / 2.
        ([[1, 2, 3]], 1.0),
        # Two that agree within and differ by 1: of the means 2 and 3 the variance is 1/2; pooled it would be 1/3.
        ([[2, 2], [3, 3]], 0.5),
        # Within (2 + 2) / 2 = 2. The means 2 and 3 differ by less than that explains: 2 * 2 * 0.25 = 1 < 2.
        ([[1, 3], [2, 4]], 2.0),
        # Within 2. Means 2 and 12: 2 * 2 * 25 = 100, so (100 - 2) / 2 = 49 between them.
        ([[1, 3], [11, 13]], 51.0),
        # A round each: all there is is between.
        ([[2], [4]], 2.0),
        # Three rounds and one: within 2 / 2 = 1. Mean 3, of the groups 2 and 6: 3 * 1 + 1 * 9 = 12. The size that
        # stands for both is 4 - (9 + 1) / 4 = 1.5, so (12 - 1) / 1.5 between.
        ([[1, 2, 3], [6]], 1 + 22 / 3),
    ],
)
def test_rounds_within_and_between_processes(groups: list[list[float]], expected: float) -> None:
    assert variance(groups) == pytest.approx(expected)


def test_the_disagreement_of_processes_enters_the_deviation(table: LatencyTable) -> None:
    for name, values in (("1", (2_000_000, 2_000_000)), ("2", (3_000_000, 3_000_000))):
        table.record(QUIET, Session(f"session {name}", 0, process=name), rows(CONV, 1, *values))
    table.record(QUIET, Session("session 3", 0, process="1"), rows(CONV, 1, 2_000_000, first=2))
    assert table.visited([CONV.hash], E, [1]) == {(CONV.hash, 1): {"1": 3, "2": 2}}
    found = table.entries(E, [CONV.hash], [1])[CONV.hash, 1]
    # Within 0; mean 12/5; between: 3 * 0.16 + 2 * 0.36 = 1.2, over a size of 5 - 13/5 = 2.4: 1/2.
    assert (found.ms, found.n_rounds, found.n_processes) == (2.0, 5, 2)
    assert found.relsd == pytest.approx(math.sqrt(0.5) / 2.4)


def test_the_median_stands_where_the_device_says_so(table: LatencyTable) -> None:
    timings = [timing(1_000_000, 2_000_000), timing(500_000, 3_000_000)]
    table.record(QUIET, STEADY, [Row(CONV, 1, index, each) for index, each in enumerate(timings)])
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 0.5
    assert table.entries(E, [CONV.hash], [1], statistic="median")[CONV.hash, 1].ms == 2.0


def test_one_round_tells_its_own_spread(table: LatencyTable) -> None:
    # Of normal samples, the median absolute deviation is 0.6745 standard deviations.
    table.record(QUIET, STEADY, [Row(CONV, 1, 0, timing(900_000, 1_000_000, mad_ns=67_450))])
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].relsd == pytest.approx(0.1)


def test_what_is_not_measured_is_never_zero(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 1_000_000) + rows(EXIT, 2, 1_000_000))
    with pytest.raises(MissingEntryError) as caught:
        table.entries(E, [CONV.hash, EXIT.hash, "f" * 24], [1])
    assert caught.value.keys == (EXIT.hash, "f" * 24)
    assert f"exit {EXIT.hash} at batch 1, unseen part {'f' * 24} at batch 1;" in str(caught.value)
    with pytest.raises(MissingEntryError, match="and 2 more; profile them"):
        table.entries(E, [f"{i:024}" for i in range(7)], [1])
    with pytest.raises(MissingEntryError):
        table.entries(OTHER.environment_id, [CONV.hash], [1])


def test_environments_never_mix(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 1_000_000))
    table.record(OTHER, replace(STEADY, session_id="other"), rows(CONV, 1, 9_000_000))
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 1.0
    assert table.entries(OTHER.environment_id, [CONV.hash], [1])[CONV.hash, 1].ms == 9.0
    assert table.environments() == {E: QUIET, OTHER.environment_id: OTHER}
    with pytest.raises(StoreError, match="belongs to environment"):
        table.record(OTHER, STEADY, [])


def test_a_rejected_session_does_not_count(table: LatencyTable) -> None:
    opened = replace(DRIFTED, finished=False, checks=())
    table.record(QUIET, opened, rows(CONV, 1, 1_000_000, 1_000_000))
    assert table.visited([CONV.hash], E, [1]) == {(CONV.hash, 1): {"drifted": 2}}  # of a killed session they are good
    table.record(QUIET, DRIFTED, [])
    assert table.visited([CONV.hash], E, [1]) == {}
    with pytest.raises(MissingEntryError):
        table.entries(E, [CONV.hash], [1])
    with pytest.raises(StoreError, match="no accepted measurements; profile"):
        table.version(E)
    table.record(QUIET, replace(DRIFTED, forced=True), [])
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].n_rounds == 2


def test_rounds_of_several_sessions_add_up(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))
    table.record(QUIET, replace(STEADY, session_id="second"), rows(CONV, 1, 1_000_000, first=1))
    assert table.visited([CONV.hash], E, [1]) == {(CONV.hash, 1): {"steady": 1, "second": 1}}
    found = table.entries(E, [CONV.hash], [1])[CONV.hash, 1]
    assert (found.ms, found.n_rounds) == (1.0, 2)
    assert found.relsd == pytest.approx(math.sqrt(0.5) / 1.5)  # 2 and 1 ms: variance 2 * 0.5 ** 2, mean 1.5


def test_measurements_are_only_added(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))
    version = table.version(E)
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))  # handed over again after a lost answer
    assert table.version(E) == version
    assert table.describe(E).measurements == 1
    with pytest.raises(StoreError, match="measurements are never changed"):
        table.record(QUIET, STEADY, rows(CONV, 2, 1_000_000) + rows(CONV, 1, 1_000_000))
    assert table.version(E) == version
    with pytest.raises(StoreError, match="measurements are never changed"):
        table.record(QUIET, STEADY, [*rows(EXIT, 1, 1), *rows(EXIT, 1, 2)])


def test_densities_are_kept_apart(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 4_000_000))
    table.record(QUIET, STEADY, rows(CONV, 1, 1_000_000), density=(1, 4))
    assert table.entries(E, [CONV.hash], [1])[CONV.hash, 1].ms == 4.0
    assert table.entries(E, [CONV.hash], [1], density=(1, 4))[CONV.hash, 1].ms == 1.0
    assert table.visited([CONV.hash], E, [1], density=(1, 2)) == {}


def test_a_frozen_version_stays_as_it_was(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))
    first = table.freeze(E)
    assert first == TableVersion(table.version(E), E, created_at=first.created_at, parent=None)
    assert table.freeze(E) == first

    table.record(QUIET, replace(STEADY, session_id="second"), rows(CONV, 1, 1_000_000, first=1))
    table.record(QUIET, replace(STEADY, forced=False, checks=DRIFTED.checks), [])  # the first falls out
    second = table.freeze(E)
    assert second.version != first.version
    assert second.parent == first.version
    assert table.versions(E) == (first, second)
    values = {
        version: table.entries(E, [CONV.hash], [1], version=version)[CONV.hash, 1]
        for version in (first.version, second.version, None)
    }
    assert values[first.version] == Entry(2.0, 0.0, 1)
    assert values[second.version] == values[None] == Entry(1.0, 0.0, 1)
    assert table.measured(E, version=first.version) == {(CONV.hash, 1): Entry(2.0, 0.0, 1)}
    with pytest.raises(StoreError, match="no frozen version 'absent'"):
        table.entries(E, [CONV.hash], [1], version="absent")
    with pytest.raises(StoreError, match="profile its device first"):
        table.freeze("nowhere")


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(6)), values=st.lists(st.integers(1, 10**12), min_size=6, max_size=6))
def test_a_version_depends_on_contents_alone(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], values: list[int]
) -> None:
    handed = [row for index, value in enumerate(values) for row in rows((CONV, EXIT)[index % 2], 1, value, first=index)]
    folder = tmp_path_factory.mktemp("order")
    versions = []
    for name, chosen in (("a", range(6)), ("b", order), ("c", order[1:])):
        with LatencyTable.open(folder / f"{name}.db") as table:
            for index in chosen:
                table.record(QUIET, STEADY, [handed[index]])
            versions.append(table.version(E))
    assert versions[0] == versions[1]
    assert versions[0] != versions[2]


def test_a_version_is_the_same_in_every_database(tmp_path: Path) -> None:
    versions = set()
    for backend in BACKENDS:
        with LatencyTable.open(fresh_url(backend, tmp_path)) as table:
            table.record(QUIET, STEADY, rows(CONV, 1, 2, 3) + rows(EXIT, 4, 5))
            versions.add(table.version(E))
    assert len(versions) == 1


def test_corrections_belong_to_a_version(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 2_000_000))
    first = table.freeze(E).version
    table.record(QUIET, STEADY, rows(EXIT, 1, 2_000_000))
    second = table.freeze(E).version
    for version, name in ((first, "identity"), (first, "line"), (second, "identity")):
        table.put_correction(name, E, version, {"a": 1.1, "loo_mape": None})
    table.put_correction("line", E, first, {"a": 1.1, "loo_mape": None})
    latest = table.latest_correction(E, first)
    assert latest is not None
    assert (latest.correction_id, latest.payload) == ("line", {"a": 1.1, "loo_mape": None})
    assert table.correction("line") == latest
    found = table.latest_correction(E, second)
    assert found is not None
    assert (found.correction_id, found.version) == ("identity", second)
    assert table.correction("absent") is None
    assert table.latest_correction(E, "absent") is None
    with pytest.raises(StoreError, match="with other contents"):
        table.put_correction("line", E, first, {"a": 1.2, "loo_mape": None})
    with pytest.raises(StoreError, match="must be finite"):
        table.put_correction("bad", E, first, {"a": math.nan})
    with pytest.raises(StoreError, match="freeze it first"):
        table.put_correction("line", E, "absent", {})


def test_keys_come_back_whole(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 1) + rows(EXIT, 1, 1))
    found = table.part_keys(E)
    assert {name: key.to_dict() for name, key in found.items()} == {key.hash: key.to_dict() for key in (CONV, EXIT)}
    assert table.part_keys(OTHER.environment_id) == {}


def test_a_summary_for_people(table: LatencyTable) -> None:
    table.record(QUIET, STEADY, rows(CONV, 1, 1, 1) + rows(CONV, 8, 1) + rows(EXIT, 1, 1))
    table.record(QUIET, DRIFTED, [])
    version = table.freeze(E)
    found = table.describe(E)
    assert (found.environment, found.parts, found.batches) == (QUIET, {"exit": 1, "segment": 1}, (1, 8))
    assert (found.measurements, found.sessions, found.rejected_sessions) == (4, 2, 1)
    assert found.versions == (version,)
    with pytest.raises(StoreError, match="nothing was measured in environment 'nowhere'"):
        table.describe("nowhere")


def test_many_keys_at_once(table: LatencyTable) -> None:
    keys = [replace(CONV, hash=f"{index:024}") for index in range(1_100)]
    table.record(QUIET, STEADY, [row for key in keys for row in rows(key, 1, 1_000_000)])
    names = [key.hash for key in keys]
    assert len(table.entries(E, names, [1])) == 1_100
    assert table.visited([*names, "new"], E, [1]).keys() == {(name, 1) for name in names}
