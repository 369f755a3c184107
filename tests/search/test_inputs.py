"""Inputs as pictures: what was not looked at can be told from what was."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dynarch.evaluators.data import Data
from dynarch.search.pictures.inputs import Gallery


def test_words_that_were_not_read_are_faint() -> None:
    """Ids 2, 3, 4 are the words; 0 is padding."""
    x = np.array([[2, 3, 4, 3, 0]], np.float32)
    data = Data(x=x, y=np.zeros(1, np.int64), classes=2, kind="text", words=("good", "<old>", "film"))
    gallery = Gallery(data, columns=1, captions=["caption"])
    gallery.add(x[0], np.array([1.0, 0.0, 1.0, 1.0, 0.0]))
    (told,) = [each.text for each in gallery.done("title").layout.annotations if each.text != "caption"]
    pieces = told.split(" ")
    assert told.count("<span") == 1
    assert pieces[0] == "good"
    assert pieces[-2:] == ["film", "&lt;old&gt;"]
    assert told[told.index(">") + 1 :].startswith("&lt;old&gt;</span>")


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_a_veil_is_seen_on_black_and_on_white(grey: float) -> None:
    x = np.full((1, 1, 4, 4), grey, np.float32)
    data = Data(x=np.concatenate([x, 1 - x]), y=np.array([0, 1]), classes=2)
    gallery = Gallery(data, columns=1, captions=["caption"])
    mask = np.ones((4, 4))
    mask[:, 2:] = 0
    gallery.add(x[0], mask)
    (image,) = gallery.done("title").data
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.source.partition(",")[2])))).astype(int)
    assert pixels[0, 0].tolist() == [255 * int(grey)] * 3
    assert np.abs(pixels[0, 3] - pixels[0, 0]).max() > 60
