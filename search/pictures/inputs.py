"""Inputs as pictures: images, clips, sequences and texts, and what of them a network did not look at."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from html import escape
from typing import final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image
from plotly.subplots import make_subplots

from ...evaluators.data import Data
from .style import FAINT, INK, SHADES, dressed

_VEIL = np.array((74, 144, 217), dtype=float)  # over what was not looked at; neither black nor white hides it
_FRAMES = 6
_LINE = 26  # characters of a text


@final
class Gallery:
    """A grid of inputs with a caption each.

    Args:
        data: that the inputs are of: their kind, and the words of texts.
        columns: beside each other.
        captions: one an input, row by row.
    """

    def __init__(self, data: Data, *, columns: int, captions: Sequence[str]) -> None:
        self._data = data
        self._columns = columns
        self._rows = -(-len(captions) // columns)
        self._lines = max(caption.count("<br>") + 1 for caption in captions)
        self._range = (float(data.x.min()), float(data.x.max()))
        self.figure = make_subplots(
            self._rows,
            columns,
            subplot_titles=list(captions),
            horizontal_spacing=0.012 if data.kind == "image" else 0.03,
            vertical_spacing=min(0.3, 0.42 / self._rows),
        )
        self.figure.update_annotations(font_size=11)
        self._count = 0

    def add(self, x: NDArray[np.float32], mask: NDArray[np.float64] | None = None) -> None:
        """The next input; a mask (`h x w`, or a number a step) says what was looked at."""
        row, column = self._count // self._columns + 1, self._count % self._columns + 1
        self._count += 1
        kind = self._data.kind
        if kind == "sequence":
            self._sequence(x, mask, row, column)
        elif kind == "text":
            self._text(x, mask, row, column)
        elif kind == "clip" or x.ndim == 3:
            self._image(self._pixels(x, mask), row, column)
        else:
            self._line(x, row, column)

    def done(self, title: str) -> go.Figure:
        """The grid."""
        heights = {"image": 165, "clip": 130, "sequence": 170, "text": 150}
        above = 70 + 15 * self._lines
        more = {"margin": {"t": above, "b": 20, "l": 30, "r": 20}, "showlegend": False}
        return dressed(self.figure, title, height=above + 10 + heights[self._data.kind] * self._rows, more=more)

    def _pixels(self, x: NDArray[np.float32], mask: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        """`h x w x 3` of an image `c x h x w`; frames of a clip stand beside each other."""
        if x.ndim == 4:
            chosen = sorted(set(np.linspace(0, len(x) - 1, _FRAMES).round().astype(int)))
            shown = [self._pixels(x[i], None if mask is None else np.full(x.shape[2:], mask[i])) for i in chosen]
            return np.concatenate([np.pad(each, ((0, 0), (0, 1), (0, 0)), constant_values=255) for each in shown], 1)
        low, high = self._range
        grey = (x - low) / max(high - low, 1e-9) * 255
        colours = grey[:3] if len(grey) >= 3 else np.repeat(grey[:1], 3, axis=0)
        pixels = colours.transpose(1, 2, 0).astype(float)
        if mask is not None:
            veil = 0.75 * (1 - mask[..., None])
            pixels = pixels * (1 - veil) + _VEIL * veil
        return pixels.clip(0, 255).astype(np.uint8)

    def _image(self, pixels: NDArray[np.uint8], row: int, column: int) -> None:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="png")
        source = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        self.figure.add_trace(go.Image(source=source, hoverinfo="skip"), row, column)
        self._bare(row, column)

    def _sequence(self, x: NDArray[np.float32], mask: NDArray[np.float64] | None, row: int, column: int) -> None:
        """Channels over the steps that are present; unread stretches are shaded."""
        present = int((x[:, 0] > 0).sum())
        for channel in range(1, x.shape[1]):
            line = go.Scatter(
                y=x[:present, channel], mode="lines", line={"width": 1.2, "color": _colour(channel)}, hoverinfo="skip"
            )
            self.figure.add_trace(line, row, column)
        for start, stop in _stretches(np.zeros(0) if mask is None else mask[:present]):
            place = {"row": row, "col": column}
            self.figure.add_vrect(x0=start - 0.5, x1=stop - 0.5, fillcolor=FAINT, opacity=0.55, line_width=0, **place)
        self.figure.update_xaxes(range=[-0.5, len(x) - 0.5], showgrid=False, tickfont_size=9, row=row, col=column)
        self.figure.update_yaxes(range=list(self._range), showgrid=False, showticklabels=False, row=row, col=column)

    def _text(self, x: NDArray[np.float32], mask: NDArray[np.float64] | None, row: int, column: int) -> None:
        """Words, one line after the other; those that were not read are faint."""
        ids = [int(number) for number in x if number > 0]
        words = self._data.words or ()
        told = [words[number - 2] if 2 <= number < len(words) + 2 else "?" for number in ids]
        numbered = " ".join(f"{index}\x1f{word}" for index, word in enumerate(told))
        wrapped = textwrap.wrap(numbered, 2 * _LINE, break_long_words=False, break_on_hyphens=False)[:7]
        # by spaces alone: the separator of number and word is white space as well
        lines = [" ".join(_word(piece, mask) for piece in line.split(" ")) for line in wrapped]
        empty = go.Scatter(x=[0], y=[0], mode="markers", marker={"opacity": 0}, hoverinfo="skip")
        self.figure.add_trace(empty, row, column)
        text = "<br>".join(lines)
        self.figure.add_annotation(
            text=text,
            x=0,
            y=1,
            xref="x domain",
            yref="y domain",
            showarrow=False,
            align="left",
            xanchor="left",
            yanchor="top",
            font={"size": 10, "color": INK},
            row=row,
            col=column,
        )
        self._bare(row, column)

    def _line(self, x: NDArray[np.float32], row: int, column: int) -> None:
        self.figure.add_trace(go.Scatter(y=x.ravel(), mode="lines", line={"width": 1}, hoverinfo="skip"), row, column)
        self._bare(row, column)

    def _bare(self, row: int, column: int) -> None:
        self.figure.update_xaxes(visible=False, row=row, col=column)
        self.figure.update_yaxes(visible=False, row=row, col=column)


def _colour(channel: int) -> str:
    return SHADES[(channel - 1) % len(SHADES)]


def _word(piece: str, mask: NDArray[np.float64] | None) -> str:
    number, _, word = piece.partition("\x1f")
    read = mask is None or mask[int(number)] > 0
    return escape(word) if read else f'<span style="color:{FAINT}">{escape(word)}</span>'


def _stretches(mask: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Where nothing was looked at: (first, behind the last) of each stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (mask == 0).astype(int), [0]))))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
