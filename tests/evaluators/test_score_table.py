"""The score table: what the network said, kept exactly; the temperatures that make exits comparable."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dynarch.evaluators.score_table import ScoreTables, calibrate, exit_logits, score_table, score_tables
from dynarch.evaluators.splits import Part
from dynarch.evaluators.testing import contract_splits, pattern_data, small_architecture
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.errors import DataError
from dynarch.spaces.network import DynamicNetwork
from dynarch.spaces.space import build


def network_of(*, static: bool = False) -> DynamicNetwork:
    document = small_architecture().to_mapping()
    if static:
        document["families"] = {}
    torch.manual_seed(0)
    return build(Architecture.from_mapping(document), pattern_data().signature)


def test_every_row_is_what_the_network_says_of_that_input() -> None:
    """Input by input and exit by exit: largest probability, lead over the second, minus the entropy over ln c."""
    part, network = contract_splits().tune, network_of().eval()
    table = score_table(exit_logits(network, part.x, batch=7), part.y)
    assert set(table.scores) == {"max_prob", "entropy", "margin"}  # patience follows from the predictions
    for row in range(len(part)):
        with torch.no_grad():
            logits = [each[0] for each in network(part.x[row : row + 1])]
        assert table.predictions[row].tolist() == [int(each.argmax()) for each in logits]
        assert table.correct[row].tolist() == [int(each.argmax()) == int(part.y[row]) for each in logits]
        for exit_index, each in enumerate(logits[:-1]):
            p = sorted((float(value) for value in each.double().softmax(0)), reverse=True)
            entropy = -sum(value * math.log(value) for value in p)
            expected = {"max_prob": p[0], "margin": p[0] - p[1]}
            for name, value in expected.items():
                assert table.scores[name][row, exit_index] == pytest.approx(value, abs=1e-5)
            assert -math.log(3) - 1e-5 <= -entropy <= 1e-5
    assert table.labels.tolist() == part.y.tolist()


def test_entropy_scores_order_inputs_by_their_entropy() -> None:
    logits = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [9, 0, 0]])
    scores = score_table([logits, logits], torch.zeros(4, dtype=torch.long)).scores["entropy"][:, 0]
    assert scores.tolist() == sorted(scores.tolist())
    assert len(set(scores.tolist())) == 4


def test_a_static_network_has_no_scores_but_predictions() -> None:
    part, network = contract_splits().tune, network_of(static=True)
    table = score_table(exit_logits(network, part.x), part.y)
    assert all(values.shape == (len(part), 0) for values in table.scores.values())
    assert table.predictions.shape == (len(part), 1)


def test_logits_come_from_evaluation_mode_whatever_the_batch() -> None:
    part, network = contract_splits().tune, network_of().train()
    running = {name: value.clone() for name, value in network.state_dict().items()}
    whole, pieces = exit_logits(network, part.x), exit_logits(network, part.x, batch=5)
    assert not network.training
    assert all(torch.equal(value, running[name]) for name, value in network.state_dict().items())
    for first, second in zip(whole, pieces, strict=True):
        assert first.shape == (len(part), 3)
        assert not first.requires_grad
        assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    logits = [torch.zeros(4, 3), torch.zeros(4, 3)]
    logits[0][2, 1] = value
    with pytest.raises(DataError, match="logits must be finite, but the network gives NaN or infinity"):
        score_table(logits, torch.zeros(4, dtype=torch.long))


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    part = contract_splits().tune
    table = score_table(exit_logits(network_of(), part.x), part.y)
    used = {"branch.0.1": np.linspace(0, 1, len(part), dtype=np.float32)}
    other = replace(table, usage=used, setting=(("knob", -0.5),))
    ScoreTables((table, other)).save(tmp_path / "new" / "tune.npz")
    both = ScoreTables.load(tmp_path / "new" / "tune.npz")
    assert [each.setting for each in both.tables] == [(), (("knob", -0.5),)]
    assert np.array_equal(both.at((("knob", -0.5), ("other", 0.0))).usage["branch.0.1"], used["branch.0.1"])
    with pytest.raises(DataError, match="nothing was recorded at"):
        both.at((("knob", 0.25),))
    loaded = both.plain
    assert loaded.scores.keys() == table.scores.keys()
    assert all(np.array_equal(loaded.scores[name], table.scores[name]) for name in table.scores)
    assert np.array_equal(loaded.predictions, table.predictions)
    assert np.array_equal(loaded.labels, table.labels)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["tune.npz"]


def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "tune.npz"
    part = contract_splits().tune
    score_tables(network_of(), part).save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "planted.npz", predictions=np.array([{}], dtype=object), labels=np.zeros(1))
    contents = [b"", b"text", whole[:-40], (tmp_path / "other.npz").read_bytes()]
    contents.append((tmp_path / "planted.npz").read_bytes())
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(DataError, match="is not a score table") as caught:
            ScoreTables.load(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not a score table"):
        ScoreTables.load(tmp_path / "absent.npz")


# -- temperatures ---------------------------------------------------------------------------------------------


def planted(temperature: float, *, samples: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels drawn from softmax(z), and the logits `temperature * z` of a network that is so much too sure."""
    generator = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(samples, 4, generator=generator)
    labels = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return temperature * z, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 8.0])
def test_a_planted_temperature_is_found(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likelihood's maximum lies at the planted one, within its standard error of a few percent."""
    logits, labels = planted(temperature)
    monkeypatch.setattr("dynarch.evaluators.score_table.exit_logits", lambda network, x: [logits, logits, logits])
    network = network_of()
    found = calibrate(network, Part(torch.zeros(len(labels), 1), labels))
    assert found == pytest.approx([temperature] * 2, rel=0.08)
    assert [float(step.temperature) for step in network.exit_steps] == pytest.approx(found)


@settings(deadline=None, max_examples=20)
@given(temperature=st.floats(0.3, 10), seed=st.integers(0, 1000))
def test_no_other_temperature_is_better(temperature: float, seed: int) -> None:
    logits, labels = planted(temperature, samples=300, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynarch.evaluators.score_table.exit_logits", lambda network, x: [logits, logits, logits])
        found = calibrate(network_of(), Part(torch.zeros(len(labels), 1), labels))[0]
    least = float(functional.cross_entropy(logits / found, labels))
    for other in np.exp(np.linspace(-2, 3, 60)):
        assert least <= float(functional.cross_entropy(logits / other, labels)) + 1e-5


def test_calibration_changes_the_confidence_of_early_exits_and_nothing_else() -> None:
    network, splits = network_of().eval(), contract_splits()
    before = exit_logits(network, splits.tune.x)
    found = calibrate(network, splits.calibrate)
    after = exit_logits(network, splits.tune.x)
    for plain, tempered, temperature in zip(before[:-1], after[:-1], found, strict=True):
        assert torch.allclose(plain / temperature, tempered, atol=1e-6)
        assert torch.equal(plain.argmax(1), tempered.argmax(1))
    assert torch.equal(before[-1], after[-1])


def test_calibrating_twice_is_calibrating_once() -> None:
    network, splits = network_of().eval(), contract_splits()
    assert calibrate(network, splits.calibrate) == calibrate(network, splits.calibrate)
    assert calibrate(network_of(static=True), splits.calibrate) == ()
