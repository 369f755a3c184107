"""What is planted where a search reads: no pickle is run, no path leads out, no secret is told, no name is SQL."""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from dynarch import SearchService
from dynarch.evaluators.data import restore_data
from dynarch.evaluators.evaluator import Task
from dynarch.evaluators.from_scratch import CHECKPOINT, MANIFEST, WEIGHTS, FromScratch, load_candidate, save_candidate
from dynarch.evaluators.score_table import ScoreTables
from dynarch.evaluators.splits import visible_splits
from dynarch.hardware.exchange import import_table
from dynarch.hardware.inventory import costs_of
from dynarch.hardware.table import LatencyTable
from dynarch.search.artefacts import Artefacts
from dynarch.search.inside import inside
from dynarch.search.ledger import Ledger
from dynarch.search.placement import Cluster
from dynarch.search.report import read_report
from dynarch.search.samplers import Study
from dynarch.search.storage import Storage
from dynarch.search.tracking import MLflowTracker
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import DynarchError, EvaluationFailed, SearchNotFoundError, SpecError, StoreError
from dynarch.spaces.space import build
from dynarch.tests.inline_searches import FOUR, Driven, book_of, quick_folder, small_data, small_problem

ran: list[str] = []


class Planted:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return _run, ("it ran",)


def _run(what: str) -> None:
    ran.append(what)


@pytest.fixture
def folder() -> Iterator[Path]:
    ran.clear()
    with quick_folder() as made:
        yield made
    assert ran == [], "a planted pickle was run"


def test_the_planted_pickle_is_a_live_one() -> None:
    ran.clear()
    pickle.loads(pickle.dumps(Planted()))
    assert ran == ["it ran"]


# -- the forms in which a pickle comes ------------------------------------------------------------------------


def bare(file: Path) -> None:
    file.write_bytes(pickle.dumps(Planted()))


def torch_archive(file: Path) -> None:
    torch.save({"network": Planted(), "epochs_done": 1}, file)


def old_torch(file: Path) -> None:
    torch.save(Planted(), file, _use_new_zipfile_serialization=False)


def objects_in_an_archive(file: Path) -> None:
    arrays = {name: np.array([Planted()], dtype=object) for name in ("x", "y", "settings", "labels", "0.predictions")}
    with file.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def objects_in_an_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.array([Planted()], dtype=object))


def pickle_in_a_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Planted()))


FORMS = (bare, torch_archive, old_torch, objects_in_an_archive, objects_in_an_array, pickle_in_a_zip)


# -- the places where a search reads --------------------------------------------------------------------------


def trained(folder: Path) -> Architecture:
    """A candidate's folder as a worker leaves it, of the first architecture of a space of four."""
    _, architecture = next(iter(FOUR.enumerate(small_data().signature)))
    network = build(architecture, small_data().signature).eval()
    save_candidate(folder, network, costs_of(network))
    return architecture


def as_checkpoint(folder: Path, plant: Callable[[Path], None]) -> None:
    architecture = trained(folder)
    plant(folder / CHECKPOINT)
    task = Task(architecture, seed=0, epochs=1, folder=folder, decisions=("max_prob",), max_points=2)
    problem = small_problem(space=FOUR)
    FromScratch().start(task, visible_splits(problem.data, problem.splits, 0), book_of(FOUR))


def as_weights(folder: Path, plant: Callable[[Path], None]) -> None:
    trained(folder)
    plant(folder / WEIGHTS)
    load_candidate(folder)


def as_manifest(folder: Path, plant: Callable[[Path], None]) -> None:
    trained(folder)
    plant(folder / MANIFEST)
    load_candidate(folder)


def as_score_table(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder / "tune.npz")
    ScoreTables.load(folder / "tune.npz")


def as_data(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder / "data.npz")
    restore_data(folder / "data.npz", "digits")


def as_report(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder / "report.json")
    read_report(folder)


def as_imported_table(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder / "table.jsonl")
    with LatencyTable.open(folder / "table.db") as table:
        import_table(table, folder / "table.jsonl")


PLACES = (as_checkpoint, as_weights, as_manifest, as_score_table, as_data, as_report, as_imported_table)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_planted_pickle_is_refused_and_never_run(
    folder: Path, place: Callable[[Path, Callable[[Path], None]], None], form: Callable[[Path], None]
) -> None:
    with pytest.raises((DynarchError, EvaluationFailed)):
        place(folder, form)
    assert ran == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_pickle_that_came_through_the_url_is_refused(folder: Path, form: Callable[[Path], None]) -> None:
    bucket, home = folder / "bucket" / "candidates" / "00001", folder / "home"
    architecture = trained(bucket)
    form(bucket / WEIGHTS)
    Artefacts(home, f"file://{folder / 'bucket'}").fetch("candidates/00001")
    with pytest.raises(DynarchError):
        load_candidate(home / "candidates/00001")
    assert (ran, architecture.families) == ([], {})


def test_what_lies_among_the_files_of_mlflow_is_never_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search writes files there and reads none: every way of MLflow to bring one here is closed."""
    source = (Path(__file__).resolve().parents[2] / "search").glob("tracking*.py")
    for file in source:
        text = file.read_text(encoding="utf-8")
        assert not any(word in text for word in ("download", "load_model", "load_text", "load_dict", "list_artifacts"))


# -- paths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", ["../outside", "/etc", "a/../../outside", "link", "link/deeper"])
def test_a_path_that_leads_out_of_its_root_is_refused(folder: Path, hostile: str) -> None:
    root, outside = folder / "root", folder / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(StoreError, match=r"must lie inside .*, but leads out of it"):
        inside(root, hostile)


@pytest.mark.parametrize("fine", ["a", "a/b", "a/../b", "."])
def test_a_path_that_stays_inside_is_taken(folder: Path, fine: str) -> None:
    assert inside(folder, fine) == folder / fine


def test_a_search_whose_id_is_a_path_has_no_folder(folder: Path) -> None:
    storage = Storage(folder)
    for hostile in ("../x", "/etc/x"):
        with pytest.raises(StoreError, match="must lie inside"):
            storage.search_folder(hostile)
        with pytest.raises(StoreError, match="must lie inside"):
            storage.kept_data(hostile, "digits")


def test_a_candidate_that_is_a_link_is_not_followed(folder: Path) -> None:
    """A folder of candidates that somebody else can write to: 00000 is a link to a folder of theirs."""
    search = Driven(folder, small_problem(space=FOUR, trials=1, epochs=1, rungs=False))
    search.run()
    (outside := folder.parent / f"{folder.name}-outside").mkdir()
    try:
        (folder / "candidates" / "00001").symlink_to(outside)
        with pytest.raises(StoreError, match="leads out"):
            inside(folder, "candidates/00001")
    finally:
        outside.rmdir()


@pytest.mark.parametrize("hostile", ["..", ".hidden", "a b", "x\n"])
def test_names_from_a_url_that_are_paths_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    artefacts = Artefacts(folder / "home", f"file://{folder / 'bucket'}")
    listed = [f"{folder}/bucket/candidates/00001/{hostile}"]
    monkeypatch.setattr(type(artefacts._files), "ls", lambda *_, **__: listed)
    with pytest.raises(StoreError, match="which is no plain file name"):
        artefacts.fetch("candidates/00001")
    assert not (folder / "home").exists()


# -- through a URL --------------------------------------------------------------------------------------------


def test_files_travel_and_only_what_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one worker to another through a file system in memory."""
    url = "memory://bucket/s"
    one, two = (Artefacts(folder / name, url) for name in ("one", "two"))
    home = folder / "one" / "candidates/00003"
    home.mkdir(parents=True)
    (home / "checkpoint.pt").write_bytes(b"1")
    (home / "weights.partial").write_bytes(b"half")
    one.send("candidates/00003")
    two.fetch("candidates/00003")
    assert {f.name: f.read_bytes() for f in (folder / "two/candidates/00003").iterdir()} == {"checkpoint.pt": b"1"}
    sent: list[str] = []
    files = fsspec.filesystem("memory")
    put = type(files).put_file

    def listen(self: object, source: str, target: str) -> object:
        sent.append(target)
        return put(self, source, target)

    monkeypatch.setattr(type(files), "put_file", listen)
    one.send("candidates/00003")
    assert sent == []
    (home / "checkpoint.pt").write_bytes(b"22")
    one.send("candidates/00003")
    assert len(sent) == 1
    one.remove("candidates/00003", "checkpoint.pt")
    one.remove("candidates/00003", "checkpoint.pt")
    Artefacts(folder / "three", url).fetch("candidates/00003")
    assert not (folder / "three/candidates/00003").exists()


def test_a_url_for_which_nothing_is_installed_is_named(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"artefacts cannot go to nosuch://x .*; install what its scheme needs"):
        Artefacts(folder, "nosuch://x")


# -- secrets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://key:s3cret@bucket/x", "s3://bucket/x?secret=s3cret"])
def test_a_spec_with_a_secret_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(SpecError) as caught:
        Cluster(artefacts=url)
    assert "s3cret" not in str(caught.value)


def test_a_password_is_in_no_error_no_log_and_no_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database and a tracking server that nobody answers at."""
    url = "postgresql://me:s3cret@127.0.0.1:1/x?connect_timeout=1"
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for attempt in (
            lambda: Ledger.open(url, pause=lambda seconds: None),
            lambda: SearchService(folder, database=url).list(),
            lambda: MLflowTracker(url.replace("postgresql", "postgresql+psycopg"), "dynarch"),
            lambda: Study(
                url.replace("postgresql", "postgresql+psycopg"), "s", directions=("maximize",), sampler="tpe", seed=0
            ),
        ):
            with pytest.raises(DynarchError) as caught:
                attempt()
            said.append(str(caught.value))
    told = "\n".join([*said, caplog.text])
    assert said
    assert "s3cret" not in told
    problem = small_problem(space=FOUR)
    assert "s3cret" not in json.dumps(problem.to_mapping())


# -- SQL ------------------------------------------------------------------------------------------------------

HOSTILE = ("x'; DROP TABLE dynarch_search; --", '" OR ""="', "%s %(a)s {} ?", "Robert'); DELETE FROM dynarch_point;--")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_sql_is_a_name(folder: Path, name: str) -> None:
    """Stored as it is, found by itself alone, and nothing else is touched."""
    with Ledger.open(folder / "ledger.db") as ledger:
        ledger.create_search("one", name=name, spec={"a": name}, seed=0, created_at=1.0)
        ledger.create_search(name, name="two", spec={}, seed=0, created_at=2.0)
        ledger.add_event(name, at=1.0, kind=name, message=name)
        assert [(each.id, each.name) for each in ledger.searches()] == [("one", name), (name, "two")]
        assert ledger.search("one").spec == {"a": name}
        assert [each.message for each in ledger.events(name)] == [name]
        assert ledger.evaluations(name) == ()
        with pytest.raises(SearchNotFoundError):
            ledger.search(f"{name} ")
    with LatencyTable.open(folder / "ledger.db") as table, pytest.raises(DynarchError):
        table.contents(name)
    with pytest.raises(DynarchError):
        SearchService(folder).get(name)
