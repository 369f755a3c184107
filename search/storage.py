"""Storage: where a service keeps things, and how they are opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from ..evaluators.data import Data, restore_data, save_data
from ..hardware.database import guest_url, prepare_guest
from ..hardware.table import LatencyTable
from ..spaces.adopted import shelf
from ..spaces.backbones import Adopted
from ..spaces.errors import SpecError, StoreError
from ..spaces.space import Space
from .bundle.bundle import Bundle
from .inside import inside
from .ledger.store import Ledger

if TYPE_CHECKING:
    from .tracking import MLflowTracker

DEFAULT_STORAGE = "dynarch-results"
EXPERIMENT = "dynarch"  # of MLflow
# In one PostgreSQL database each has a schema of its own, as both want a table called `alembic_version`.
STUDY_SCHEMA, TRACKING_SCHEMA = "dynarch_optuna", "dynarch_mlflow"
BOOK, REPORT = "book.json", "report"  # in the folder of a search


@final
@dataclass(frozen=True)
class Storage:
    """One folder, and the databases that go with it.

    Args:
        folder: artefacts of searches; every worker must see it.
        database: URL of ledger, latency table, study and MLflow; None: SQLite files in the folder.
        tracking: URI of MLflow, if it is kept elsewhere.
    """

    folder: Path
    database: str | None = None
    tracking: str | None = None

    def prepare(self) -> None:
        """Create the folder, and let this process find the models in it.

        Raises:
            StoreError: if it cannot be written.
        """
        if self.database is not None and "://" not in self.database:
            raise StoreError(
                f"a database must be named by a URL such as postgresql://user@host/name, but got {self.database!r}"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"storage {str(self.folder)!r} cannot be written ({error.strerror}); name another folder"
            ) from None
        shelf.add_shelf(self.folder / shelf.MODELS)

    @property
    def ledger_url(self) -> str:
        """Ledger and latency table."""
        return self.database or f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path | None:
        """The SQLite file of ledger and latency table; None if a server keeps them."""
        return None if self.database else self.folder.resolve() / "dynarch.db"

    @property
    def study_url(self) -> str:
        """Optuna's study, which keeps its own version table, hence its own file or schema."""
        return guest_url(self.database or self._file("study.db"), STUDY_SCHEMA)

    @property
    def tracking_uri(self) -> str:
        """MLflow's store."""
        return self.tracking or guest_url(self.database or self._file("mlflow.db"), TRACKING_SCHEMA)

    def _file(self, name: str) -> str:
        return f"sqlite:///{self.folder.resolve() / name}"

    @property
    def artifact_root(self) -> Path | None:
        """Where MLflow keeps files; None if a server decides."""
        return None if self.tracking is not None else self.folder.resolve() / "mlflow-artifacts"

    def open_ledger(self) -> Ledger:
        """The ledger."""
        return Ledger.open(self.ledger_url)

    def open_table(self) -> LatencyTable:
        """The latency table."""
        return LatencyTable.open(self.ledger_url)

    def open_study_url(self) -> str:
        """The address of the study, whose place is there now.

        Raises:
            StoreError: if the database cannot be reached.
        """
        prepare_guest(self.database or self._file("study.db"), STUDY_SCHEMA)
        return self.study_url

    def open_tracking_uri(self) -> str:
        """The address of MLflow, whose place is there now.

        Raises:
            StoreError: if the database cannot be reached.
        """
        if self.tracking is None and self.database is not None:
            prepare_guest(self.database, TRACKING_SCHEMA)
        return self.tracking_uri

    def open_tracker(self) -> MLflowTracker:
        """MLflow, which takes seconds to load: workers and most commands can do without it.

        Raises:
            StoreError: if it cannot be reached.
        """
        from .tracking import MLflowTracker

        return MLflowTracker(self.open_tracking_uri(), EXPERIMENT, artifact_root=self.artifact_root)

    def register(self, search_id: str, bundle: Bundle, name: str) -> str:
        """Register a bundle of a search in MLflow, as the next version of a model; its URI.

        Raises:
            StoreError: if MLflow cannot be written, or holds no run of the search.
        """
        from .tracking_model import register

        return register(self.open_tracker(), self.open_tracking_uri(), search_id, bundle, name)

    def newest_search(self) -> str:
        """The id of the search that was launched last.

        Raises:
            SpecError: if there is none.
        """
        with self.open_ledger() as ledger:
            records = sorted(ledger.searches(), key=lambda record: record.created_at)
        if not records:
            raise SpecError("", f"there is no search in {self.folder}; launch one with dynarch search SPEC")
        return records[-1].id

    def search_folder(self, search_id: str) -> Path:
        """Artefacts of one search."""
        return inside(self.folder / "searches", search_id)

    def resume_command(self, search_id: str) -> str:
        """The command that continues a search; addresses may hold passwords, so they are not repeated."""
        given = {"--database ...": self.database, "--tracking ...": self.tracking}
        options = [name for name, value in given.items() if value is not None]
        return " ".join((f"dynarch resume {search_id} --storage {self.folder}", *options))

    def keep_data(self, data: Data) -> None:
        """Write the data, so that a resumed search has it whatever process resumes it."""
        file = self._data_file(data.id)
        if file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        save_data(partial, data)
        partial.replace(file)

    def keep_models(self, space: Space) -> None:
        """Copy the adopted models of a space, so that any process that sees the storage can build them."""
        for backbone in space.backbones:
            if isinstance(backbone, Adopted):
                shelf.copy_to(self.folder / shelf.MODELS, backbone.model)

    def kept_data(self, data_id: str, name: str) -> Data:
        """The data of a search.

        Raises:
            StoreError: if it is gone or changed.
        """
        file = self._data_file(data_id)
        if not file.exists():
            raise StoreError(f"the data of this search is gone from {file}; put it back to go on")
        data = restore_data(file, name)
        if data.id != data_id:
            raise StoreError(f"{file} no longer holds the data that the search began with; put it back")
        return data

    def _data_file(self, data_id: str) -> Path:
        return inside(self.folder / "data", f"{data_id}.npz")
