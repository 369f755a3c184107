from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch

from dynarch.spaces.architecture import Architecture
from dynarch.spaces.backbone import Signature
from dynarch.spaces.backbones import InvertedResidual, Residual
from dynarch.spaces.errors import ShapeError, SpecError, UnknownNameError
from dynarch.spaces.families import EarlyExit
from dynarch.spaces.recipe import Recipe
from dynarch.spaces.scope import Chance, Replay, Scope
from dynarch.spaces.space import Space, build, describe, recipe_of

SIGNATURE = Signature((1, 8, 8), 4)
SMALL = Space(
    (
        Residual(width=(4,), depth=(1, 2), stages=2),
        InvertedResidual(width=(4,), expansion=(1, 2), depth=(1,), stages=2),
    ),
    (EarlyExit(max_exits=1, training=("equal",)),),
    Recipe(learning_rate=(0.003, 0.01)),
)
# Residual depths 1-1, 1-2, 2-1, 2-2 have 1, 2, 2, 3 places for an exit, inverted ones (two expansions) 1 each; at each
# place one of two heads, or no exit at all: (3 + 5 + 5 + 7 + 3 + 3) * 2 rates.
SMALL_SIZE = 52


def test_size_is_the_number_of_architectures() -> None:
    made = list(SMALL.enumerate(SIGNATURE))
    assert SMALL.size(SIGNATURE) == SMALL_SIZE
    assert len(made) == len({architecture.id for _, architecture in made}) == SMALL_SIZE
    for params, architecture in made:
        assert SMALL.replay(params, SIGNATURE) == architecture


def test_a_space_without_families_is_one_of_static_networks() -> None:
    space = Space(SMALL.backbones, (), SMALL.training)
    assert space.size(SIGNATURE) == len(list(space.enumerate(SIGNATURE))) == (4 + 2) * 2
    assert {architecture.families == {} for _, architecture in space.enumerate(SIGNATURE)} == {True}
    assert space.decisions() == ()


def test_every_member_builds_as_described() -> None:
    for _, architecture in islice(SMALL.enumerate(SIGNATURE), 0, None, 5):
        network = build(architecture, SIGNATURE).eval()
        chosen = architecture.families.get("early_exit", {"positions": []})
        assert network.exits == len(chosen["positions"])
        assert network.architecture == architecture
        assert describe(architecture).startswith(architecture.backbone["name"].split("_")[0])
        assert ("exits" in describe(architecture)) == (network.exits > 0)
        assert recipe_of(architecture).learning_rate in (0.003, 0.01)


def test_building_draws_weights_from_the_generator_and_sampling_leaves_it_alone() -> None:
    architecture = next(iter(SMALL.baselines(SIGNATURE)))
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(torch.cat([weight.flatten() for weight in build(architecture, SIGNATURE).parameters()]))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])
    before = torch.get_rng_state()
    fresh = Space((Residual(width=(5,)),))  # not yet known to the cache of outlines
    fresh.sample(Scope(Chance(np.random.default_rng(0))), SIGNATURE)
    assert torch.equal(torch.get_rng_state(), before)


def test_baselines_are_the_extreme_static_members() -> None:
    baselines = list(SMALL.baselines(SIGNATURE))
    members = {architecture.id for _, architecture in SMALL.enumerate(SIGNATURE)}
    assert [architecture.backbone for architecture in baselines] == [
        {"name": "residual", "width": 4, "depths": [1, 1]},
        {"name": "residual", "width": 4, "depths": [2, 2]},
        {"name": "inverted_residual", "width": 4, "expansion": 1, "depths": [1, 1]},
        {"name": "inverted_residual", "width": 4, "expansion": 2, "depths": [1, 1]},
    ]
    for architecture in baselines:
        assert architecture.id in members
        assert architecture.families == {}
        assert recipe_of(architecture).learning_rate == 0.003


def test_equal_extremes_are_one_baseline() -> None:
    space = Space((Residual(width=(4,), depth=(1,)),))
    assert len(list(space.baselines(SIGNATURE))) == 1


def test_static_answers_replay_to_the_same_id() -> None:
    always = Space(SMALL.backbones, (EarlyExit(min_exits=1),), SMALL.training)  # baselines are no members of this one
    for space in (SMALL, always):
        for architecture in space.baselines(SIGNATURE):
            params = space.static_params(architecture, SIGNATURE)
            assert space.sample_static(Scope(Replay(params)), SIGNATURE).id == architecture.id
            assert all(
                name.split(".")[0] in ("backbone", "residual", "inverted_residual", "training") for name in params
            )
    dynamic = next(made for _, made in SMALL.enumerate(SIGNATURE) if made.families)
    with pytest.raises(SpecError, match=f"no static network {dynamic.id}"):
        SMALL.static_params(dynamic, SIGNATURE)


def test_replay_refuses_answers_nobody_asked_for() -> None:
    params, _ = next(iter(SMALL.enumerate(SIGNATURE)))
    with pytest.raises(SpecError, match="is not asked for by this space; remove it") as caught:
        SMALL.replay({**params, "residual.depth.7": 1}, SIGNATURE)
    assert caught.value.path == "residual.depth.7"
    del params["backbone"]
    with pytest.raises(SpecError, match="must be given to replay"):
        SMALL.replay(params, SIGNATURE)


def test_documents_hold_the_whole_space() -> None:
    document = json.loads(json.dumps(SMALL.to_mapping()))
    assert Space.from_mapping(document) == SMALL
    assert Space.from_mapping({}) == Space()
    assert Space.from_mapping({"families": {}}).families == ()


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ([1], "space", "must be a table, but got [1]"),
        ({"familys": {}}, "space.familys", "did you mean 'families'"),
        ({3: {}, "familys": {}}, "space.3", "is not known"),
        ({"backbones": []}, "space.backbones", "must be a table of names, but got []"),
        ({"backbones": {}}, "space.backbones", "must name at least one backbone"),
        ({"backbones": {"residul": {}}}, "space.backbones.residul", "did you mean 'residual'"),
        ({"backbones": {"residual": {"widht": [8]}}}, "space.backbones.residual.widht", "did you mean 'width'"),
        ({"backbones": {"residual": {"width": []}}}, "space.backbones.residual.width", "at least one option"),
        ({"backbones": {"residual": {"width": [8, "a"]}}}, "space.backbones.residual.width.1", "but got 'a'"),
        ({"backbones": {"residual": {"width": 8}}}, "space.backbones.residual.width", "but got 8"),
        ({"backbones": {"residual": 8}}, "space.backbones.residual", "must be a table of options, but got 8"),
        ({"families": {"early_exits": {}}}, "space.families.early_exits", "did you mean 'early_exit'"),
        (
            {"families": {"early_exit": {"max_exit": 1}}},
            "space.families.early_exit.max_exit",
            "did you mean 'max_exits'",
        ),
        ({"families": {"early_exit": {"max_exits": 0}}}, "space.families.early_exit.max_exits", "between 1 and 32"),
        ({"families": {"early_exit": {"heads": ["mpl"]}}}, "space.families.early_exit.heads.0", "did you mean 'mlp'"),
        ({"training": {"learning_rte": [1]}}, "space.training.learning_rte", "did you mean 'learning_rate'"),
        ({"training": {"learning_rate": [0.1, 2]}}, "space.training.learning_rate", "(0, 1], but got 2.0"),
        ({"training": {"batch_size": 1}}, "space.training.batch_size", "between 2 and 65536, but got 1"),
        ({"training": 3}, "space.training", "must be a table of options, but got 3"),
    ],
)
def test_bad_documents_name_place_and_remedy(document: object, path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        Space.from_mapping(document)
    assert caught.value.path == path
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_values_in_python_name_their_place() -> None:
    with pytest.raises(SpecError, match=r"^backbones: must be distinct, but got \['residual', 'residual'\]"):
        Space((Residual(), Residual(stages=2)))
    with pytest.raises(SpecError, match="families: must be distinct"):
        Space(families=(EarlyExit(), EarlyExit(max_exits=1)))
    for wrong in ("residual", {"width": [8]}, Residual):
        with pytest.raises(SpecError) as caught:
            Space((wrong,))  # type: ignore[arg-type]
        assert caught.value.path == "backbones.0"


@pytest.mark.parametrize(
    ("part", "change", "path", "words"),
    [
        ("backbone", {"name": "residul", "width": 4, "depths": [1]}, "backbone.name", "did you mean 'residual'"),
        ("backbone", {"width": 4, "depths": [1]}, "backbone.name", "is not known"),
        ("backbone", {"name": "residual", "width": 4}, "backbone.depths", "must be given"),
        ("backbone", {"name": "residual", "width": 0, "depths": [1]}, "backbone.width", "at least 1"),
        ("families", {"early_exits": {}}, "families.early_exits", "did you mean 'early_exit'"),
        ("training", {}, "training.learning_rate", "must be given"),
    ],
)
def test_bad_architectures_name_their_place(part: str, change: dict[str, object], path: str, words: str) -> None:
    good = next(iter(SMALL.baselines(SIGNATURE))).to_mapping()
    with pytest.raises(SpecError) as caught:
        build(Architecture.from_mapping({**good, part: change}), SIGNATURE)
    assert caught.value.path == f"architecture.{path}"
    assert words in str(caught.value)


def test_inputs_that_do_not_suit_the_backbone_are_refused() -> None:
    with pytest.raises(ShapeError, match="fewer stages or larger images"):
        Space((Residual(stages=5),)).size(SIGNATURE)
    with pytest.raises(ShapeError, match="channels x height x width"):
        SMALL.size(Signature((64,), 4))


def test_unknown_names_in_a_replayed_space_are_refused() -> None:
    params = next(params for params, made in SMALL.enumerate(SIGNATURE) if made.families)
    with pytest.raises(SpecError) as caught:
        SMALL.replay({**params, "backbone": "transformer"}, SIGNATURE)
    assert caught.value.path == "backbone"
    assert not isinstance(caught.value, UnknownNameError)
