"""Pictures of real inputs: which are easy and which hard, and what of them is skipped."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ...evaluators.looked_at import LookedAt, looked_at, masks_of
from .inputs import Gallery
from .subject import Member, Subject

_EACH, _SKIPPED = 8, 6
_WORDS = {
    "tiles": "tiles that no block ran on are veiled",
    "tokens": "squares or words whose tokens were dropped are veiled",
    "patches": "what no look fell on is veiled",
    "steps": "what was not read is shaded",
    "everything": "the network looks at everything",
}


def easy_and_hard(subject: Subject) -> go.Figure | None:
    """Inputs that leave first and surest, above those that leave last and least sure; None if all are treated alike."""
    member = subject.telling()
    if member is None or np.ptp(member.work) == 0:
        return None
    order = np.lexsort((-member.surety, member.work))
    count = min(_EACH, len(order) // 2)
    chosen = [*order[:count], *order[::-1][:count]]
    gallery = Gallery(subject.problem.data, columns=count, captions=[_caption(subject, member, i) for i in chosen])
    for index in chosen:
        gallery.add(subject.tune.x[index].numpy())
    return gallery.done(f"Least work (above) and most work (below) at point {member.label}")


def skipped(subject: Subject) -> go.Figure | None:
    """Inputs from little to much work, with what the network did not look at; None if it always looks at everything."""
    able = [m for m in subject.members if masks_of(subject.candidate(m.point.number)[0]) != "everything"]
    member = subject.telling(able)
    if member is None:
        return None
    network, _ = subject.candidate(member.point.number)
    order = np.argsort(member.work, kind="stable")
    chosen = [int(order[place]) for place in np.linspace(0, len(order) - 1, _SKIPPED).round().astype(int)]
    found = [looked_at(network, subject.tune.x[index : index + 1], member.policy) for index in chosen]
    captions = [f"{_caption(subject, member, i)}<br>{_share(seen)}" for i, seen in zip(chosen, found, strict=True)]
    columns = _SKIPPED if subject.problem.data.kind == "image" else _SKIPPED // 2
    gallery = Gallery(subject.problem.data, columns=columns, captions=captions)
    for index, seen in zip(chosen, found, strict=True):
        gallery.add(subject.tune.x[index].numpy(), seen.mask)
    return gallery.done(f"What point {member.label} skips: {_WORDS[masks_of(network)]}")


def _caption(subject: Subject, member: Member, index: int) -> str:
    last = len(member.policy.thresholds)
    place = "final head" if member.taken[index] == last else f"exit {member.taken[index]}"
    work = member.work[index] / member.work.max()
    right = "right" if member.right[index] else "wrong"
    where = f"{place}<br>" if last else ""  # two lines: beside each other they would overlap
    return f"{where}{work:.0%} work, {right}"


def _share(seen: LookedAt) -> str:
    mask: NDArray[np.float64] = seen.mask
    return f"{mask.mean():.0%} looked at"
