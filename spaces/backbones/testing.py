"""The contract of backbones, as a test suite. Imports pytest: no facade may import it.

Subclass it and supply one fixture:

    class TestMyBackbone(BackboneContract):
        @pytest.fixture
        def backbone(self) -> AbstractBackbone:
            return MyBackbone()
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from ..backbone import AbstractBackbone, Signature, outline
from ..errors import ShapeError
from ..probes import SIGNATURES, check_gradients
from ..scope import enumerate_points
from ..signature import KINDS, random_inputs


class BackboneContract:
    """What every backbone keeps to; the fixture `backbone` supplies one with its ranges."""

    @pytest.fixture
    def signature(self, backbone: AbstractBackbone) -> Signature:
        """Inputs and classes of the networks built."""
        return SIGNATURES[backbone.kinds[0]]

    def test_says_what_it_is(self, backbone: AbstractBackbone) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", backbone.name)
        assert re.search(r"\d{4}", backbone.source), "a source has a year"
        assert getattr(type(backbone), "__final__", False), "concrete classes are final"
        assert type(backbone).from_mapping(json.loads(json.dumps(backbone.to_mapping()))) == backbone

    def test_size_is_the_number_of_choices(self, backbone: AbstractBackbone) -> None:
        made = [choice for _, choice in enumerate_points(backbone.suggest)]
        assert len(made) == len(set(made)) == backbone.size()
        assert len({backbone.describe(choice) for choice in made}) == len(made), "tables would confuse two of them"
        assert all(backbone.choice_type.from_mapping(choice.to_mapping()) == choice for choice in made)

    def test_extremes_bound_the_work(self, backbone: AbstractBackbone, signature: Signature) -> None:
        made = [choice for _, choice in enumerate_points(backbone.suggest)]
        work = {choice: self._work(backbone, choice, signature) for choice in made}
        smallest, largest = backbone.extremes()
        assert work[smallest] == min(work.values())
        assert work[largest] == max(work.values())

    def test_outline_is_what_runs(self, backbone: AbstractBackbone, signature: Signature) -> None:
        for choice in backbone.extremes():
            built = backbone.build(choice, signature).eval()
            shapes = outline(built, signature)
            assert sum(shapes.stages) == shapes.blocks == len(built.blocks)
            with torch.no_grad():
                x = random_inputs(signature, 3)
                features, logits = built.stem(x), built(x)
                for block, shape in zip(built.blocks, shapes.feature_shapes, strict=True):
                    features = block(features)
                    assert tuple(features.shape) == (3, *shape)
                assert torch.equal(built.head(features), logits)
            assert logits.shape == (3, signature.classes)
            assert all(macs > 0 for macs in shapes.block_macs)

    def test_inputs_do_not_influence_each_other(self, backbone: AbstractBackbone, signature: Signature) -> None:
        built = backbone.build(backbone.extremes()[1], signature).eval()
        with torch.no_grad():
            x = random_inputs(signature, 5)
            together = built(x)
            for row in range(5):
                torch.testing.assert_close(built(x[row : row + 1])[0], together[row], rtol=0, atol=1e-5)

    def test_finite_gradients_reach_every_weight(self, backbone: AbstractBackbone, signature: Signature) -> None:
        for choice in backbone.extremes():
            built = backbone.build(choice, signature).train()
            check_gradients([built(random_inputs(signature, 16))], built)

    def test_unfit_inputs_are_refused(self, backbone: AbstractBackbone) -> None:
        assert set(backbone.kinds) <= set(KINDS)
        others = [each for each in SIGNATURES.values() if each.kind not in backbone.kinds]
        others += [Signature((5,), 4)] * ("image" in backbone.kinds)
        for signature in others:
            with pytest.raises(ShapeError, match=backbone.kinds[0]):
                backbone.build(backbone.extremes()[0], signature)

    @staticmethod
    def _work(backbone: AbstractBackbone, choice: Any, signature: Signature) -> int:
        return sum(outline(backbone.build(choice, signature).eval(), signature).block_macs)
