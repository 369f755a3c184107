"""The contract of families, as a test suite. Imports pytest: no facade may import it.

Subclass one and supply its first fixture; the others have values that suit image networks:

    class TestMyFamily(FamilyContract):
        @pytest.fixture
        def family(self) -> AbstractFamily:
            return MyFamily()
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from .architecture import Architecture
from .backbone import AbstractBackbone, Outline, Signature
from .backbones import BACKBONES
from .decisions import decision as decision_named
from .errors import SpecError, UnknownNameError
from .families import FAMILIES
from .family import AbstractFamily
from .plan import Plan
from .probes import (
    SIGNATURES,
    Asked,
    Candidate,
    check_gradients,
    check_routing,
    fitting,
    fresh,
    ids_elsewhere,
    pieces_of,
    policies,
    sample,
    settings,
    trained,
    with_gradients,
)
from .scope import Replay, Scalar, Scope, Suggester, enumerate_points
from .space import Space, build, describe

Params = Mapping[str, Scalar]


def fits(family: AbstractFamily, backbone: AbstractBackbone) -> bool:
    """Whether a family has something to choose on a backbone, for inputs of its first kind."""
    return fitting(family, backbone, SIGNATURES[backbone.kinds[0]]) is not None


def looked_at_closely(family: AbstractFamily, backbone: AbstractBackbone) -> bool:
    """Whether the dear checks are made on this pair: on two of the backbones that one of `FAMILIES` fits.

    Families and backbones from elsewhere are always looked at.
    """
    return _close_looks(family, backbone) != slice(0)


def _close_looks(family: AbstractFamily, backbone: AbstractBackbone) -> slice:
    """Which candidates meet the dearest check: two, which a family's two backbones share."""
    if type(family) not in FAMILIES or type(backbone) not in BACKBONES:
        return slice(2)
    return _close_pairs().get((family.name, backbone.name), slice(0))


@cache
def _close_pairs() -> Mapping[tuple[str, str], slice]:
    """Two backbones for each family: of those that it fits, the ones that were looked at least so far."""
    looked: Counter[str] = Counter()
    pairs: dict[tuple[str, str], slice] = {}
    for kind in FAMILIES:
        fit = [each.name for each in BACKBONES if fits(kind(), each())]
        chosen = sorted(fit, key=lambda name: looked[name])[:2]
        looked.update(chosen)
        looks = [slice(0, 1), slice(1, 2)] if len(chosen) == 2 else [slice(2)]
        pairs |= {(kind.name, name): look for name, look in zip(chosen, looks, strict=True)}
    return pairs


@cache
def _sampled(space: Space, signature: Signature) -> tuple[Candidate, ...]:
    """Drawn once for all tests that look at them."""
    return tuple(sample(space, signature, number=3))


class FamilyContract:
    """What every family keeps to, on every backbone; the fixture `family` supplies one with its ranges."""

    @pytest.fixture(params=BACKBONES, ids=lambda kind: kind.name)
    def backbone(self, request: pytest.FixtureRequest, family: AbstractFamily) -> AbstractBackbone:
        """A backbone the family fits."""
        made: AbstractBackbone = request.param()
        if not fits(family, made):
            pytest.skip(f"{family.name} does not fit {made.name}")
        return made

    @pytest.fixture
    def signature(self, backbone: AbstractBackbone) -> Signature:
        """Inputs and classes of the networks built."""
        return SIGNATURES[backbone.kinds[0]]

    @pytest.fixture
    def space(self, family: AbstractFamily, backbone: AbstractBackbone) -> Space:
        """The family on the backbone."""
        return Space((backbone,), (family,))

    @pytest.fixture
    def candidates(self, space: Space, signature: Signature) -> list[Candidate]:
        """Some members of the space, the most dynamic ones that turned up."""
        return list(_sampled(space, signature))

    @pytest.fixture
    def suggesters(self) -> Sequence[Callable[[Params], Suggester]]:
        """What answers from stored parameters; a user of Optuna adds its `FixedTrial`."""
        return (Replay,)

    @pytest.fixture
    def small(self, family: AbstractFamily, backbone: AbstractBackbone, signature: Signature) -> tuple[Any, Outline]:
        """A small choice of the backbone and its outline: few enough members to list them all."""
        found = fitting(family, backbone, signature)
        assert found is not None
        return found

    def test_says_what_it_is(self, family: AbstractFamily) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", family.name)
        assert family.wing in ("sample", "spatial", "temporal")
        assert family.switches
        assert re.search(r"\d{4}", family.source), "a source has a year"
        assert getattr(type(family), "__final__", False), "concrete classes are final"
        assert type(family).from_mapping(json.loads(json.dumps(family.to_mapping()))) == family
        assert all(decision_named(name).name == name for name in family.decisions())

    def test_fits_a_backbone(self, family: AbstractFamily) -> None:
        assert any(fitting(family, kind(), SIGNATURES[kind.kinds[0]]) for kind in BACKBONES)

    def test_names_are_scoped_and_keep_their_range(
        self, family: AbstractFamily, space: Space, signature: Signature
    ) -> None:
        ranges: dict[str, set[object]] = {}
        for seed in range(40):
            space.sample(Scope(Asked(seed, ranges)), signature)
        changing = {name: found for name, found in ranges.items() if len(found) > 1}
        assert not changing, "a name always means the same range"
        places = {name.partition(".")[0] for name in ranges}
        assert family.name in places
        assert places <= {"backbone", "blocks", "fork", space.backbones[0].name, family.name, "training"}

    def test_replay_is_exact(
        self,
        space: Space,
        signature: Signature,
        candidates: list[Candidate],
        suggesters: Sequence[Callable[[Params], Suggester]],
    ) -> None:
        for params, architecture in candidates:
            assert space.replay(params, signature).id == architecture.id
            for suggester in suggesters:
                assert space.sample(Scope(suggester(params)), signature) == architecture

    def test_choice_survives_a_document(self, family: AbstractFamily, candidates: list[Candidate]) -> None:
        for _, architecture in candidates:
            mapping = architecture.families.get(family.name)
            if mapping is not None:
                choice = family.choice_type.from_mapping(mapping)
                assert family.choice_type.from_mapping(choice.to_mapping()) == choice
                assert choice.to_mapping() == mapping
                assert family.describe(choice) in describe(architecture)

    def test_size_is_the_number_of_choices(self, family: AbstractFamily, small: tuple[Any, Outline]) -> None:
        made = [choice for _, choice in enumerate_points(lambda scope: family.suggest(scope, small[1]))]
        assert len(made) == len(set(made)) == family.size(small[1])
        silent = made.count(None) if family.decisions() else len(made)
        assert family.without_exits(small[1]) == silent
        rival = family.rewrites_blocks or family.forks
        assert not (rival and None in made), "the space asks whether a rival is there at all"

    def test_cover_holds_exactly_the_parts_of_all_choices(
        self, family: AbstractFamily, backbone: AbstractBackbone, small: tuple[Any, Outline], signature: Signature
    ) -> None:
        built = backbone.build(small[0], signature).eval()

        def pieces(choice: Any) -> set[tuple[object, ...]]:
            plan = Plan(built, small[1], signature)
            family.apply(choice, plan)
            part: dict[str, Any] = {family.name: choice.to_mapping()}
            return pieces_of(plan.lower(Architecture.of(backbone={}, families=part, training={})).eval(), built)

        made = [choice for _, choice in enumerate_points(lambda scope: family.suggest(scope, small[1]))]
        needed = set[tuple[object, ...]]().union(*(pieces(choice) for choice in made if choice is not None))
        assert set[tuple[object, ...]]().union(*map(pieces, family.cover(small[1]))) == needed

    def test_ids_are_the_same_in_another_process(self, family: AbstractFamily) -> None:
        tasks = [(kind(), SIGNATURES[kind.kinds[0]]) for kind in BACKBONES]
        signature = next(task for backbone, task in tasks if fitting(family, backbone, task))
        space = Space(families=(family,))
        candidates = sample(space, signature, number=5)
        ids = ids_elsewhere(space, signature, [params for params, _ in candidates])
        assert ids == [architecture.id for _, architecture in candidates]

    def test_network_runs_at_two_batch_sizes(self, candidates: list[Candidate], signature: Signature) -> None:
        for _, architecture in candidates:
            network, x = fresh(architecture, signature, inputs=5)
            with torch.no_grad():
                together, alone = network(x), network(x[:1])
            assert len(together) == network.exits + 1
            for many, one in zip(together, alone, strict=True):
                assert many.shape == (5, signature.classes)
                torch.testing.assert_close(one, many[:1], rtol=0, atol=1e-5)

    def test_finite_gradients_reach_every_weight(
        self, family: AbstractFamily, candidates: list[Candidate], signature: Signature
    ) -> None:
        for _, architecture in candidates:
            for each in with_gradients(architecture, family.name):
                network, x = fresh(each, signature, inputs=48)
                generator = torch.Generator().manual_seed(0)
                network.train()
                # Early, while branches are explored, and late, when every place decides.
                runs = [network.simulate(x, progress=progress, generator=generator) for progress in (0.1, 0.45)]
                logits = [each for run in runs for each in run.logits]
                drawn = [each for run in runs for each in run.log_probs]
                scores = [each for run in runs for listed in run.scores.values() for each in listed]
                check_gradients(logits, network, log_probs=drawn, scores=scores)

    def test_training_is_repeatable(self, candidates: list[Candidate], signature: Signature) -> None:
        for _, architecture in candidates:
            network, x = fresh(architecture, signature, inputs=8)
            network.train()
            once, again = (
                network.simulate(x, progress=0.3, generator=torch.Generator().manual_seed(5)).logits for _ in range(2)
            )
            assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True)), "noise must use the generator"

    def test_weights_survive_a_state_dict(self, candidates: list[Candidate], signature: Signature) -> None:
        for _, architecture in candidates:
            network, x = fresh(architecture, signature, inputs=3)
            other = build(architecture, signature).eval()
            other.load_state_dict(network.state_dict())
            with torch.no_grad():
                assert all(torch.equal(a, b) for a, b in zip(network(x), other(x), strict=True))

    def test_routed_is_simulated_and_work_is_the_trace(
        self,
        family: AbstractFamily,
        backbone: AbstractBackbone,
        candidates: list[Candidate],
        signature: Signature,
    ) -> None:
        if not looked_at_closely(family, backbone):
            pytest.skip("dear, and so made on two backbones a family, which meet them all in turns")
        for seed, (_, architecture) in enumerate(candidates[_close_looks(family, backbone)]):
            network, x = trained(architecture, signature, inputs=32)
            taken = []
            divided: dict[str, bool] = {}
            for setting in settings(network, x, seed=seed):
                with torch.no_grad():
                    run = network.simulate(x, setting=setting)
                for name, used in run.usage.items():
                    divided[name] = divided.get(name, False) or bool(used.min() < used.max())
                knobs = tuple(setting.items())
                tried = policies(run.logits, network.exit_steps, family.decisions(), seed=seed)
                taken += [check_routing(network, x, replace(policy, setting=knobs)) for policy in tried]
            if any(knob not in network.levels for knob in network.knobs):  # levels are the same for all inputs
                assert any(divided.values()), f"no setting divided the inputs: {sorted(divided)}"
            left_at = {exit_index for numbers in taken for exit_index in numbers.tolist()}
            assert left_at == set(range(network.exits + 1)), "some exit was never taken"
            if network.exits:
                assert any(len(set(numbers.tolist())) > 1 for numbers in taken), "no policy divided the inputs"

    def test_bad_choices_name_their_place(
        self, family: AbstractFamily, candidates: list[Candidate], signature: Signature
    ) -> None:
        whole = candidates[0][1].to_mapping()
        good, place = whole["families"][family.name], f"architecture.families.{family.name}"

        def refused(choice: object, error: type[SpecError], path: str) -> None:
            families = {**whole["families"], family.name: choice}
            with pytest.raises(error) as caught:
                build(Architecture.from_mapping({**whole, "families": families}), signature)
            assert re.fullmatch(rf"{re.escape(path)}(\..+)?", caught.value.path)  # a nested table says where in it

        refused({**good, "no_such_option": 1}, UnknownNameError, f"{place}.no_such_option")
        refused(3, SpecError, place)
        for name in good:
            refused({**good, name: {"no": "value"}}, SpecError, f"{place}.{name}")
