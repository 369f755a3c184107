"""Pictures: what a finished search has to show beside its front. Drawn by plotly; a page of them works offline."""

from __future__ import annotations

from .page import pictures_page
from .subject import Subject
from .table import PICTURES, draw

__all__ = ["PICTURES", "Subject", "draw", "pictures_page"]
