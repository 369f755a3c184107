"""The example specs: each can be read, and the joint ones offer all that fits their task."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynarch import FAMILIES, load_spec

EXAMPLES = Path(__file__).parent.parent / "examples"
JOINT = ("families", "opinions", "drifts")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_is_a_search_that_could_start(file: Path) -> None:
    problem = load_spec(file)
    assert f"dynarch search examples/{file.name}" in file.read_text()
    assert problem.space.size(problem.data.signature) > 100


@pytest.mark.parametrize("name", JOINT)
def test_joint_examples_offer_every_family_that_fits_their_backbones(name: str) -> None:
    """And no family that fits none: whatever is offered can be found on the front."""
    problem = load_spec(EXAMPLES / f"{name}.toml")
    shapes = [each for _, _, each in problem.space.outlines(problem.data.signature)]

    def fits(size: list[int], *, alone: bool) -> bool:
        return max(size) > (0 if alone else 1)  # a family that others go with counts that it stays away

    offered = problem.space.families
    for family in offered:
        sizes = [family.size(each) for each in shapes]
        assert fits(sizes, alone=family.rewrites_blocks or family.forks), f"{family.name} fits no backbone here"
    for kind in FAMILIES:
        if kind.name not in {family.name for family in offered}:
            sizes = [kind().size(each) for each in shapes]
            assert not fits(sizes, alone=kind.rewrites_blocks or kind.forks), f"{kind.name} fits and is not offered"


def test_joint_examples_hold_every_family_and_each_several_wings() -> None:
    spaces = [load_spec(EXAMPLES / f"{name}.toml").space for name in JOINT]
    assert {family.name for space in spaces for family in space.families} == {kind.name for kind in FAMILIES}
    assert all(len({family.wing for family in space.families}) >= 2 for space in spaces)
