"""Placement: on which cluster a search runs, and where the files of its candidates go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit

from ..spaces.spec import AbstractSpec, require


@final
@dataclass(frozen=True)
class Cluster(AbstractSpec):
    """Where candidates are trained. A spec is kept and shown, so it holds no secrets.

    Args:
        ray: "auto" or `host:port` of a head node; None starts a small cluster here.
        artefacts: URL such as `s3://bucket/folder` through which candidates travel; None: the storage folder is on a
            file system that all nodes share.
    """

    ray: str | None = None
    artefacts: str | None = None

    def check(self) -> None:
        """Addresses without passwords."""
        require(self.ray is None or bool(self.ray.strip()), "ray", "must not be empty; leave it out instead")
        if self.artefacts is not None:
            require("://" in self.artefacts, "artefacts", f"must be a URL, but got {self.artefacts!r}")
            secret = "@" in urlsplit(self.artefacts).netloc or "?" in self.artefacts
            require(not secret, "artefacts", "must hold no secrets; give them in the environment of all nodes")
