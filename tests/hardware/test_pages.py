"""Pages of a device that is not at hand: parts that its table holds, parts that the ladder tells, parts it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynarch.hardware.correction import IDENTITY, Correction
from dynarch.hardware.device import Environment
from dynarch.hardware.estimate import Estimate
from dynarch.hardware.inventory import Inventory, costs_of, inventory, inventory_of
from dynarch.hardware.keys import PartKey, part_key
from dynarch.hardware.operations import features
from dynarch.hardware.pages import measured_pages, told_curves, told_pages
from dynarch.hardware.profile import Row
from dynarch.hardware.session import Session
from dynarch.hardware.table import Entry, LatencyTable
from dynarch.hardware.timer import RoundTiming
from dynarch.hardware.unseen import UnseenParts
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import Residual
from dynarch.spaces.errors import MissingEntryError, SpecError
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.policy import Policy
from dynarch.spaces.space import Space, build
from dynarch.spaces.trace import COMPACT
from dynarch.tests.databases import fresh_url

ELSEWHERE = Environment((("kind", "phone"), ("threads", 1)))
E = ELSEWHERE.environment_id
SPACE = Space((Residual(width=(4,), depth=(1,), stages=2),), (EarlyExit(max_exits=1, heads=("linear",)),))
SIGNATURE = Signature((1, 8, 8), 4)
DONE = Session("done", seed=0, finished=True)


def law_ns(key: PartKey, batch: int) -> int:
    """A microsecond an operation, a nanosecond a multiply-accumulate."""
    count, macs, _ = features(key, batch).sum(axis=0)
    return int(1000 * count + macs) + 1


def timing(ns: int) -> RoundTiming:
    return RoundTiming(n=9, min_ns=ns, p10_ns=ns, median_ns=ns, mean_ns=ns, p90_ns=ns, max_ns=ns, mad_ns=0)


@pytest.fixture(scope="module")
def found() -> Inventory:
    return inventory(SPACE, SIGNATURE, compaction=False)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LatencyTable]:
    with LatencyTable.open(fresh_url("sqlite", tmp_path)) as opened:
        yield opened


def fill(table: LatencyTable, found: Inventory, *, without: frozenset[str] = frozenset()) -> None:
    rows = [Row(key, 1, 0, timing(law_ns(key, 1))) for key, _ in found.parts.values() if key.hash not in without]
    table.record(ELSEWHERE, DONE, rows)


def test_what_the_table_holds_is_handed_on(table: LatencyTable, found: Inventory) -> None:
    fill(table, found)
    pages = told_pages(found, table, E, batch=1)
    assert (pages.environment_id, pages.correction) == (E, IDENTITY)
    assert {name: curve.ms for name, curve in pages.curves.items()} == {
        key.hash: (law_ns(key, 1) / 1e6,) for key, _ in found.parts.values() if key.kind != "compact"
    }
    assert all(curve.doubts == () for curve in pages.curves.values())
    costs = found.costs[-1]
    told = pages.predict(costs, Policy.never(sum(part.kind == "exit" for part in costs.parts)), np.array([9]), seed=0)
    assert told.steps == (("measured", 1.0),)


def test_a_correction_travels_with_its_version_and_batch(table: LatencyTable, found: Inventory) -> None:
    fill(table, found)
    version = table.freeze(E).version
    for batch, slope in ((1, 1.25), (8, 1.5)):
        payload = {**Correction(a=slope, n=20).to_dict(), "batch": batch}
        table.put_correction(f"at {batch}", E, version, payload)
    assert told_pages(found, table, E, batch=1).correction == Correction(a=1.25, n=20)


def test_what_nothing_is_known_of_is_refused_by_name(table: LatencyTable, found: Inventory) -> None:
    lacking = next(key.hash for key, _ in found.parts.values() if key.kind == "exit")
    fill(table, found, without=frozenset({lacking}))
    with pytest.raises(MissingEntryError, match=r"1 of .* parts cannot be told") as caught:
        told_pages(found, table, E, batch=1)
    assert list(caught.value.keys) == [lacking]
    assert "profile it" in str(caught.value)


def test_other_batches_are_not_made_up(table: LatencyTable, found: Inventory) -> None:
    fill(table, found)
    with pytest.raises(MissingEntryError):
        told_pages(found, table, E, batch=64)


def test_an_environment_that_is_not_there_is_named(table: LatencyTable, found: Inventory) -> None:
    fill(table, found)
    with pytest.raises(SpecError, match=E):
        told_pages(found, table, "absent", batch=1)


def test_networks_whose_parts_were_all_measured_are_read_off(table: LatencyTable, found: Inventory) -> None:
    fill(table, found)
    version = table.freeze(E).version
    table.put_correction("it", E, version, {**Correction(a=1.25, n=20).to_dict(), "batch": 1})
    few = found.costs[:1]
    pages = measured_pages(few, table, E, batch=1)
    whole = told_pages(found, table, E, batch=1)
    assert pages is not None
    assert (pages.correction, pages.table_version) == (whole.correction, whole.table_version)
    assert set(pages.curves) == {
        key for part, key in zip(few[0].parts, few[0].keys, strict=True) if part.kind != COMPACT
    }
    assert pages.curves.items() <= whole.curves.items()


def test_networks_of_which_something_was_not_measured_are_not_read_off(table: LatencyTable, found: Inventory) -> None:
    assert measured_pages(found.costs, table, E, batch=1) is None, "no such environment yet"
    lacking = found.costs[-1].keys[0]
    fill(table, found, without=frozenset({lacking}))
    assert measured_pages([found.costs[-1]], table, E, batch=1) is None
    assert measured_pages(found.costs[:1], table, E, batch=8) is None, "another batch"
    others = [costs for costs in found.costs if lacking not in costs.keys]
    assert others
    assert measured_pages(others, table, E, batch=1) is not None


def test_the_parts_of_some_members_are_among_those_of_the_space(found: Inventory) -> None:
    architectures = [architecture for _, architecture in SPACE.enumerate(SIGNATURE)][:3]
    some = inventory_of(architectures, SIGNATURE, compaction=False)
    assert [costs.keys for costs in some.costs] == [costs_of(build(a, SIGNATURE).eval()).keys for a in architectures]
    assert set(some.parts) <= set(found.parts)


def linear(inputs: int, outputs: int) -> PartKey:
    return part_key(nn.Linear(inputs, outputs).eval(), (torch.zeros(1, inputs),), kind="exit")


def test_curves_say_on_which_step_of_the_ladder_they_stand() -> None:
    grid = {key.hash: key for key in (linear(i, o) for i in (16, 64, 128, 256) for o in (8, 32, 96, 192))}
    measured = {(name, b): Entry(law_ns(key, b) / 1e6, 0.02, 4) for name, key in grid.items() for b in (1, 2, 4)}
    name = next(iter(grid))
    del measured[name, 2]
    stranger = linear(96, 64)  # between those of the grid
    curves = told_curves(
        UnseenParts(measured, grid), {n: (key, 4) for n, key in {**grid, stranger.hash: stranger}.items()}
    )
    assert curves[name].doubts[0] == ("measured", 0.0)
    assert [how for how, _ in curves[name].doubts] == ["measured", "interpolated", "measured"]
    assert [how for how, _ in curves[stranger.hash].doubts] == ["modelled"] * 3
    assert all(relsd > 0 for _, relsd in curves[stranger.hash].doubts)
    for size in (1, 2, 4):
        assert curves[stranger.hash].at(size) == pytest.approx(law_ns(stranger, size) / 1e6, rel=0.1)
    whole = [curve for each, curve in curves.items() if each not in (name, stranger.hash)]
    assert all(curve.estimate(2) == Estimate(curve.at(2), 0.0, "measured") for curve in whole)
