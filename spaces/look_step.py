"""Looks: a glance at a small version of an image, then patches of the image itself, one after the other.

The image waits in the memory that steps hand on, beside the places that were looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from .exports import Exports, Op
from .gradient import AbstractGradient, one_hot
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo

IMAGE, SEEN = "image", "seen"
_NEVER = 1e4  # logits off a place that was looked at


@final
class GlanceStep(AbstractStep):
    """Keeps the image for later, and goes on with a small version of it.

    Args:
        resize: `b x c x h x w` -> a smaller image.
        token: equal tokens promise equal work on equal images.
    """

    def __init__(self, resize: nn.Module, token: tuple[int, ...]) -> None:
        super().__init__()
        self.resize = resize
        self.token = token

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """The resizing."""
        token = ("glance", self.token, tuple(run.features.shape[1:]))
        return (Part(PartInfo("glance", "glance", self.depth), self.resize, (run.features,), token),)

    def names(self) -> tuple[str, ...]:
        """The resizing."""
        return ("glance",)

    def watched(self) -> Mapping[str, nn.Module]:
        """The resizing."""
        return {"glance": self.resize}

    def simulate(self, run: Simulation) -> None:
        """Keep, resize."""
        run.memory[IMAGE] = run.features
        run.features = self.resize(run.features)

    def route(self, run: Routing) -> None:
        """The same."""
        run.record("glance")
        run.memory[IMAGE] = run.features
        run.features = self.resize(run.features)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """Keep, resize."""
        name = exports.program("glance", self.resize, run.features)
        return [{"op": "keep", "as": IMAGE}, {"op": "run", "program": name, "takes": ["x"], "gives": ["x"]}]


@final
class Patches(nn.Module):
    """The patches of an image at a grid of places: `b x c x h x w` -> `b x c x height x width` each.

    Args:
        image: `c x h x w`.
        patch: `height x width`.
        grid: places on a side; they spread evenly, and the outer ones lie at the edges.
    """

    cells: Tensor

    def __init__(self, image: tuple[int, ...], patch: tuple[int, int], grid: int) -> None:
        super().__init__()
        _, height, width = image
        self.patch = patch
        tops = [round(i * (height - patch[0]) / (grid - 1)) for i in range(grid)]
        lefts = [round(j * (width - patch[1]) / (grid - 1)) for j in range(grid)]
        rows, columns = torch.arange(patch[0])[:, None], torch.arange(patch[1])[None]
        cells = [((top + rows) * width + left + columns).flatten() for top in tops for left in lefts]
        self.register_buffer("cells", torch.stack(cells), persistent=False)  # places x pixels of a patch

    def forward(self, image: Tensor, picked: Tensor) -> Tensor:
        """The patch of each input at its place; nothing else is read.

        Args:
            image: `b x c x h x w`.
            picked: `b` numbers of places.
        """
        cells = self.cells.index_select(0, picked)[:, None].expand(-1, image.shape[1], -1)
        return image.flatten(2).gather(2, cells).view(image.shape[0], -1, *self.patch)

    def mixed(self, image: Tensor, weights: Tensor) -> Tensor:
        """The patches of all places, weighted: for training, where a weight passes its gradient on.

        Args:
            image: `b x c x h x w`.
            weights: `b x places`.
        """
        every = image.flatten(2)[:, :, self.cells]  # b x c x places x pixels
        return torch.einsum("bcpi,bp->bci", every, weights).view(image.shape[0], -1, *self.patch)


@final
class Look(nn.Module):
    """One look: picks a place by what is known, reads the patch there, adds what it finds.

    Args:
        policy: features `b x c x h x w` -> logits `b x places`.
        patches: cuts them out.
        reader: patch -> features like those that are known.
    """

    def __init__(self, policy: nn.Module, patches: Patches, reader: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.patches = patches
        self.reader = reader

    def logits(self, features: Tensor, seen: Tensor) -> Tensor:
        """`b x places`; nobody looks twice at one."""
        made: Tensor = self.policy(features) - _NEVER * seen
        return made

    def read(self, features: Tensor, image: Tensor, seen: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Features and places seen after a look at these places, `b` numbers."""
        return features + self.reader(self.patches(image, picked)), seen + one_hot(picked, seen)

    def forward(self, features: Tensor, image: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Features `b x c x h x w` and places seen `b x places` after a look at the best place."""
        return self.read(features, image, seen, self.logits(features, seen).argmax(1))


@final
class LookStep(AbstractStep):
    """One look at a patch of the image.

    Args:
        index: number of the look.
        look: what it does; looks may share it.
        gradient: how training passes through the choice of a place.
        place: where among the looks it is, from 0 to 1.
    """

    def __init__(self, index: int, look: Look, *, gradient: AbstractGradient, place: float) -> None:
        super().__init__()
        self.index = index
        self.look = look
        self.gradient = gradient
        self.place = place
        self.name = f"look.{index}"

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """The look, place and patch included."""
        call, inputs = self.look, (run.features, run.memory[IMAGE], self._seen(run))
        return (Part(PartInfo(self.name, "look", self.depth), call, inputs),)

    def names(self) -> tuple[str, ...]:
        """The look."""
        return (self.name,)

    def watched(self) -> Mapping[str, nn.Module]:
        """The step itself: looks may share all that they run."""
        return {self.name: self}

    def _seen(self, run: Simulation | Routing) -> Tensor:
        kept = run.memory.get(SEEN)
        places = self.look.patches.cells.shape[0]
        return run.features.new_zeros(run.features.shape[0], places) if kept is None else kept

    def forward(self, features: Tensor, image: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """As the look."""
        made: tuple[Tensor, Tensor] = self.look(features, image, seen)
        return made

    def simulate(self, run: Simulation) -> None:
        """Look; in training through the estimator, at a place drawn by it."""
        image, seen = run.memory[IMAGE], self._seen(run)
        if run.progress is not None:
            logits = self.look.logits(run.features, seen)
            draw = self.gradient.draw(logits, progress=run.progress, place=self.place, generator=run.generator)
            patch = self.look.patches.mixed(image, draw.weights)
            run.features, run.memory[SEEN] = run.features + self.look.reader(patch), seen + draw.weights.detach()
            if draw.log_prob is not None:
                run.log_probs.append(draw.log_prob)
            return
        picked = self.look.logits(run.features, seen).argmax(1)
        if run.shuffle is not None:
            order = torch.randperm(len(picked), generator=run.shuffle, device=run.shuffle.device)
            picked = picked[order.to(picked.device)]
        run.features, run.memory[SEEN] = self.look.read(run.features, image, seen, picked)

    def route(self, run: Routing) -> None:
        """Look."""
        run.record(self.name)
        run.features, run.memory[SEEN] = self(run.features, run.memory[IMAGE], self._seen(run))
        run.show(self.name, run.memory[SEEN])

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The look, place and patch included."""
        seen = self._seen(run)
        name = exports.program(self.name, self.look, run.features, run.memory[IMAGE], seen)
        op: Op = {"op": "run", "program": name, "takes": ["x", IMAGE, SEEN], "gives": ["x", SEEN]}
        return [{**op, "zeros": {SEEN: seen.shape[1]}}]
