"""Artefacts: how the files of a candidate get from the worker that trained it to whoever needs them.

On a file system that all nodes share they are where they are written. Else they travel through a URL that `fsspec`
understands (`s3://`, `gs://`, `file://` and more; the package for the scheme must be installed on every node): the
worker writes into a folder of its own, and sends what has changed after every epoch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, final

import fsspec

from ..spaces.errors import StoreError

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # of a file; no folder, and nothing hidden


@final
class Artefacts:
    """The files of the candidates of one search.

    Args:
        folder: where they are here, one folder a candidate.
        url: where they are for everybody; None: the folder is.

    Raises:
        StoreError: if nothing is installed for the URL. So do all methods if it cannot be reached.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        self._folder = folder
        self._url = url
        self._sent: dict[tuple[str, str], tuple[int, int]] = {}
        self._files: Any = None
        self._root = ""
        if url is not None:
            try:
                self._files, root = fsspec.core.url_to_fs(url)
            except (ImportError, ValueError, OSError) as error:
                raise StoreError(f"artefacts cannot go to {url} ({error}); install what its scheme needs") from error
            self._root = str(root).rstrip("/")

    def fetch(self, candidate: str, *, but: tuple[str, ...] = ()) -> None:
        """Bring the files of a candidate here, as far as they are not."""
        if self._files is None:
            return
        try:
            names = self._names(candidate)
            for name in names - set(but):
                target = self._folder / candidate / name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_name(f"{name}.partial")
                    self._files.get_file(self._there(candidate, name), str(partial))
                    partial.replace(target)
                    self._sent[candidate, name] = _state(target)
        except OSError as error:
            raise self._failed("bring", candidate, error) from error

    def send(self, candidate: str) -> None:
        """Take the files of a candidate that have changed to where everybody finds them, each at once."""
        if self._files is None:
            return
        try:
            for file in sorted((self._folder / candidate).glob("*")):
                key, state = (candidate, file.name), _state(file)
                if file.suffix == ".partial" or self._sent.get(key) == state:
                    continue
                place = self._there(candidate, file.name)
                self._files.makedirs(self._there(candidate), exist_ok=True)
                self._files.put_file(str(file), f"{place}.partial")
                self._files.mv(f"{place}.partial", place)
                self._sent[key] = state
        except OSError as error:
            raise self._failed("send", candidate, error) from error

    def remove(self, candidate: str, name: str | None = None) -> None:
        """Remove a file of a candidate, or all of them, from where everybody finds them; it need not be there."""
        if self._files is None:
            return
        try:
            for each in self._names(candidate) if name is None else {name} & self._names(candidate):
                self._files.rm_file(self._there(candidate, each))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("remove", candidate, error) from error

    def _names(self, candidate: str) -> set[str]:
        """What there is of a candidate; names that are paths are refused, as they could lead anywhere."""
        self._files.invalidate_cache()
        try:
            listed = self._files.ls(self._there(candidate), detail=False)
        except FileNotFoundError:
            return set()
        names = {str(path).rstrip("/").removeprefix(self._there(candidate)).lstrip("/") for path in listed}
        for name in names:
            if not _NAME.fullmatch(name):
                raise StoreError(f"{self._url}/{candidate} holds {name!r}, which is no plain file name; remove it")
        return {name for name in names if not name.endswith(".partial")}

    def _there(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _failed(self, what: str, candidate: str, error: OSError) -> StoreError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return StoreError(f"cannot {what} {candidate} at {self._url} ({reason}); see that every node can reach it")


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size
