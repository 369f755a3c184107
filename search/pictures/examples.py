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
    "tiles": "the fewer blocks ran on a tile, the more it is veiled",
    "tokens": "squares whose tokens were dropped are veiled, words are faint",
    "merged": "the more squares or words share a token, the more they are veiled",
    "patches": "what no look fell on is veiled, and was seen in the small image alone",
    "steps": "what was not read is shaded, or faint",
    "everything": "the network looks at everything",
}

_SHARES = {"merged": "of the tokens left", "patches": "looked at closely"}


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
    seen = {member.label: _seen(subject, member) for member in able}
    skipping = [member for member in able if any(each.mask.min() < 1 for each in seen[member.label])]
    # Where all inputs get the same work, the middle of the front: its ends look at nearly nothing, or at nearly all.
    member = subject.telling(skipping[len(skipping) // 2 :] + skipping[: len(skipping) // 2])
    if member is None:
        return None
    network, _ = subject.candidate(member.point.number)
    what, chosen, found = masks_of(network), _chosen(member), seen[member.label]
    captions = [
        f"{_caption(subject, member, i)}<br>{_share(subject, i, each)}" for i, each in zip(chosen, found, strict=True)
    ]
    columns = _SKIPPED if subject.problem.data.kind == "image" else _SKIPPED // 2
    gallery = Gallery(subject.problem.data, columns=columns, captions=captions)
    for index, each in zip(chosen, found, strict=True):
        gallery.add(subject.tune.x[index].numpy(), each.mask)
    return gallery.done(f"What point {member.label} skips: {_WORDS[what]}")


def _chosen(member: Member) -> list[int]:
    """A few inputs from the least work to the most."""
    order = np.argsort(member.work, kind="stable")
    return [int(order[place]) for place in np.linspace(0, len(order) - 1, _SKIPPED).round().astype(int)]


def _seen(subject: Subject, member: Member) -> list[LookedAt]:
    network, _ = subject.candidate(member.point.number)
    return [looked_at(network, subject.tune.x[i : i + 1], member.policy) for i in _chosen(member)]


def _caption(subject: Subject, member: Member, index: int) -> str:
    last = len(member.policy.thresholds)
    place = "final head" if member.taken[index] == last else f"exit {member.taken[index]}"
    work = member.work[index] / member.work.max()
    right = "right" if member.right[index] else "wrong"
    where = f"{place}<br>" if last else ""  # two lines: beside each other they would overlap
    return f"{where}{work:.0%} work, {right}"


def _share(subject: Subject, index: int, seen: LookedAt) -> str:
    """Of what is there: padding is not counted."""
    x, kind = subject.tune.x[index], subject.problem.data.kind
    mask: NDArray[np.float64] = seen.mask
    if kind in ("text", "sequence"):
        mask = mask[(x if kind == "text" else x[:, 0]).numpy() > 0]
    return f"{mask.mean():.0%} {_SHARES.get(seen.what, 'looked at')}"
