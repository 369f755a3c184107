"""Samplers: which candidate to try next. The only folder that knows Optuna."""

from __future__ import annotations

from .make import make_sampler
from .study import LEVEL, Asked, Study, TrialRecord

__all__ = ["LEVEL", "Asked", "Study", "TrialRecord", "make_sampler"]
