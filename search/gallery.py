"""Gallery: the pictures of a search, drawn where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluators.atomic import replacing
from .ledger.store import Ledger
from .problem import Problem
from .storage import REPORT

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PAGE = "pictures.html"


def draw_pictures(
    problem: Problem, search_id: str, *, ledger: Ledger, folder: Path, study_url: str
) -> dict[str, Figure]:
    """Pictures by name, as `pictures.PICTURES` has them; those that there is nothing to show in are left out."""
    from .pictures import Subject, draw

    return draw(Subject(problem, search_id, ledger, folder, study_url))


def write_pictures(
    problem: Problem, search_id: str, *, ledger: Ledger, folder: Path, study_url: str
) -> dict[str, Path]:
    """Write the page of all pictures beside the report; its path by its name.

    Raises:
        OSError: if it cannot be written.
    """
    from .pictures import pictures_page

    figures = draw_pictures(problem, search_id, ledger=ledger, folder=folder, study_url=study_url)
    file = folder / REPORT / PAGE
    with replacing(file) as stream:
        stream.write(pictures_page(problem.strategy.name, f"search {search_id}", figures).encode())
    return {PAGE: file}
