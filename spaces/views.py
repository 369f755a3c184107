"""Views: heads and gates that read features through what their backbone shows them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

from torch import Tensor, nn


@final
class Seen(nn.Module):
    """A module behind a view.

    Args:
        view: features `b x ...` -> what the module reads.
        module: reads it, and whatever else it is given.
    """

    def __init__(self, view: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.view = view
        self.module = module

    def forward(self, features: Tensor, *more: Tensor) -> object:
        """What the module makes of it."""
        return self.module(self.view(features), *more)


def seen(view: nn.Module, module: nn.Module) -> nn.Module:
    """The module behind the view; the module itself where the view shows the features as they are."""
    return module if isinstance(view, nn.Identity) else Seen(view, module)


def seen_token(view: nn.Module, token: str) -> Hashable:
    """A token of a module of this token behind the view: equal ones promise equal work on equal features."""
    return token if isinstance(view, nn.Identity) else (token, id(view))
