"""The correction: known coefficients are found, bounds hold, intervals cover."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynarch.hardware.correction import IDENTITY, PRIOR_RADIUS, Correction, Observation, fit
from dynarch.spaces.errors import DataError, SpecError


def _networks(n: int, a: float, b: float, c: float, *, noise: float = 0.0, seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    sums = rng.uniform(1.0, 20.0, n)
    calls = rng.integers(2, 30, n)
    times = (b + a * sums + c * calls) * np.exp(noise * rng.standard_normal(n))
    return [Observation(float(s), float(k), float(t)) for s, k, t in zip(sums, calls, times, strict=True)]


def test_fewer_than_four_networks_say_nothing() -> None:
    assert fit([]) == fit(_networks(3, 1.5, 0.2, 0.0)) == IDENTITY
    assert IDENTITY.apply(3.0, 7) == 3.0


@pytest.mark.parametrize("n", [4, 8, 15])
def test_a_line_is_recovered_and_calls_are_left_out_below_sixteen(n: int) -> None:
    correction = fit(_networks(n, 1.12, 0.3, 0.0))
    assert correction.a == pytest.approx(1.12, abs=1e-3)
    assert correction.b_ms == pytest.approx(0.3, abs=1e-3)
    assert correction.c_ms == 0.0
    assert correction.n == n
    assert correction.loo_mape < 1e-3


@pytest.mark.parametrize("n", [8, 15])
def test_below_sixteen_calls_are_fitted_only_where_they_tell_much_of_others(n: int) -> None:
    assert fit(_networks(n, 1.1, 0.0, 0.2)).c_ms == pytest.approx(0.2, rel=1e-2)
    little = [fit(_networks(n, 1.1, 0.0, 0.001, noise=0.05, seed=seed)).c_ms for seed in range(20)]
    assert sum(c == 0.0 for c in little) >= 16


def test_a_static_network_and_a_gated_one_have_their_own_times() -> None:
    """Two networks in seven ways: gates and branches at 0.03 ms a call, which no line on sums can tell."""
    ways = [Observation(1.2, 1, 1.2 * 1.05 + 0.03, network=0)]
    ways += [Observation(0.4 + 0.2 * n, 9 + n, (0.4 + 0.2 * n) * 1.05 + 0.03 * (9 + n), network=1) for n in range(6)]
    correction = fit(ways)
    for way in ways:
        assert correction.apply(way.sum_ms, way.calls) == pytest.approx(way.measured_ms, rel=0.01)
    assert correction.loo_mape < 0.03


def test_all_three_are_recovered_from_sixteen() -> None:
    correction = fit(_networks(16, 1.08, 0.25, 0.04))
    assert correction.a == pytest.approx(1.08, abs=1e-3)
    assert correction.b_ms == pytest.approx(0.25, abs=2e-3)
    assert correction.c_ms == pytest.approx(0.04, abs=1e-3)
    assert correction.apply(10.0, 5) == pytest.approx(0.25 + 10.8 + 0.2, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 3.0), st.floats(0.0, 2.0), st.floats(0.0, 0.2), st.integers(16, 40), st.integers(0, 10**6))
def test_predictions_are_exact_without_noise(a: float, b: float, c: float, n: int, seed: int) -> None:
    networks = _networks(n, a, b, c, seed=seed)
    correction = fit(networks)
    for network in networks:
        assert correction.apply(network.sum_ms, network.calls) == pytest.approx(network.measured_ms, rel=1e-2)


def test_bounds_hold() -> None:
    # True line 0.2 * sum + 1: the slope stops at 0.5. True line 2 * sum - 1: the constant stops at 0.
    low = fit([Observation(s, 1, 0.2 * s + 1) for s in (1.0, 2.0, 5.0, 9.0, 12.0)])
    assert low.a == 0.5
    assert low.b_ms >= 0
    negative = fit([Observation(s, 1, 2 * s - 1) for s in (1.0, 2.0, 5.0, 9.0, 12.0)])
    assert negative.b_ms == 0
    fewer = fit([Observation(s, k, 2 * s - 0.01 * k) for s, k in zip(range(5, 25), range(40, 0, -2), strict=True)])
    assert fewer.c_ms == 0


def test_relative_errors_are_what_counts() -> None:
    # Nine small networks at 1.2 times their sum; one of 1000 ms at 1.0. In absolute squares the one
    # would decide the slope; relative, the nine do.
    networks = [Observation(0.5 + 0.1 * i, 1, 1.2 * (0.5 + 0.1 * i)) for i in range(9)]
    correction = fit([*networks, Observation(1000.0, 1, 1000.0)])
    errors = [abs(correction.apply(o.sum_ms, o.calls) / o.measured_ms - 1) for o in networks]
    assert max(errors) < 0.1


def test_equal_networks_give_a_unique_sensible_answer() -> None:
    correction = fit([Observation(2.0, 4, 2.4)] * 6)
    assert correction.apply(2.0, 4) == pytest.approx(2.4, rel=1e-3)
    assert correction.a >= 0.5
    assert correction.b_ms >= 0


def test_left_out_error_by_hand() -> None:
    # The first three lie on T = sum, so the last, left out, is predicted 4 and measured 5: its error
    # is 0.2, a quarter of which the mean cannot fall below; its ratio is 1.25. Of four ratios the 95 %
    # quantile lies 0.85 of the way from the third to the largest.
    correction = fit([Observation(s, 1, t) for s, t in ((1, 1), (2, 2), (3, 3), (4, 5))])
    assert correction.loo_mape >= 0.05
    assert correction.residual_q95 > 1.15  # measured / predicted = 5/4 at the top
    assert correction.residual_q05 < 1.0


def test_interval_with_few_networks_is_not_narrower_than_the_prior() -> None:
    assert fit(_networks(5, 1.1, 0.1, 0.0)).radius == PRIOR_RADIUS
    assert fit(_networks(9, 1.1, 0.1, 0.0)).radius < 0.01


def test_interval_is_symmetric_in_ratio() -> None:
    correction = replace(IDENTITY, radius=math.log(1.25))
    assert list(correction.interval(4.0)) == pytest.approx([3.2, 5.0])


def test_interval_covers_nine_in_ten() -> None:
    # Conformal coverage is at least 90 % on average over fits; 40 fits x 50 fresh networks have a
    # standard error near 1 %, so 86 % is a bound that only a wrong rank would break.
    inside = []
    for seed in range(40):
        correction = fit(_networks(24, 1.1, 0.2, 0.02, noise=0.08, seed=seed))
        for network in _networks(50, 1.1, 0.2, 0.02, noise=0.08, seed=1000 + seed):
            low, high = correction.interval(correction.apply(network.sum_ms, network.calls))
            inside.append(low <= network.measured_ms <= high)
    assert 0.86 <= np.mean(inside) <= 0.97


def test_estimated_parts_widen_the_interval() -> None:
    # Deviations of 0.3 and 0.4 make one of 0.5: the half-width grows by 5/3.
    correction = replace(IDENTITY, radius=0.6, residual_sd=0.3)
    assert correction.interval(2.0, 0.4) == pytest.approx((2 * math.exp(-1.0), 2 * math.exp(1.0)))
    assert correction.interval(2.0) == pytest.approx((2 * math.exp(-0.6), 2 * math.exp(0.6)))


def test_intervals_cover_where_some_networks_are_of_estimated_parts() -> None:
    """Every second network's sum is off by another 20 %, which its deviation says."""

    def some(n: int, seed: int) -> list[Observation]:
        rng = np.random.default_rng(seed)
        found = []
        for index, network in enumerate(_networks(n, 1.1, 0.0, 0.0, noise=0.04, seed=seed)):
            relsd = 0.2 * (index % 2)
            off = network.measured_ms * math.exp(relsd * rng.standard_normal())
            found.append(replace(network, measured_ms=off, relsd=relsd))
        return found

    inside: dict[float, list[bool]] = {0.0: [], 0.2: []}
    for seed in range(40):
        correction = fit(some(24, seed))
        for network in some(50, 1000 + seed):
            low, high = correction.interval(correction.apply(network.sum_ms, network.calls), network.relsd)
            inside[network.relsd].append(low <= network.measured_ms <= high)
    # Both kinds alike; without the deviation one half-width for all would hold nearly every measured one.
    assert all(0.84 <= np.mean(held) <= 0.98 for held in inside.values())


def test_paths_of_one_network_are_left_out_together() -> None:
    # Five networks of four paths each; the paths of one are alike: 1.5 times what the sum says.
    paths = [
        Observation(1.0 + s, 1, (1.0 + s) * (1.5 if n == 4 else 1.0), network=n) for n in range(5) for s in range(4)
    ]
    alone = fit([replace(path, network=None) for path in paths])
    together = fit(paths)
    assert (together.n, alone.n) == (5, 20)
    # Left out with its siblings, a path of the odd network is predicted 1 and measured 1.5.
    assert together.residual_q95 == pytest.approx(1.5, rel=1e-3)
    assert alone.residual_q95 < 1.47  # its siblings give some of it away


def test_calls_are_counted_by_networks_and_not_by_paths() -> None:
    """A term that matters little is had from sixteen networks on, however many paths fewer have."""
    paths = [replace(p, network=i % 15) for i, p in enumerate(_networks(60, 1.1, 0.0, 0.02, noise=0.05))]
    assert fit(paths).c_ms == 0.0
    assert fit([replace(path, network=index % 16) for index, path in enumerate(paths)]).c_ms > 0


def _of(kind: str, first: int, networks: list[Observation]) -> list[Observation]:
    return [replace(network, kind=kind, network=first + number) for number, network in enumerate(networks)]


def test_kinds_that_differ_have_coefficients_of_their_own() -> None:
    light, heavy = _networks(8, 1.05, 0.0, 0.0), _networks(8, 1.4, 0.0, 0.3, seed=1)
    both = fit([*_of("light", 0, light), *_of("heavy", 8, heavy)])
    assert both.n == 16
    assert [kind for kind, _ in both.kinds] == ["heavy", "light"]
    for kind, networks in (("light", light), ("heavy", heavy)):
        own = both.of(kind)
        assert own.n == 8
        for each in networks:
            assert own.apply(each.sum_ms, each.calls) == pytest.approx(each.measured_ms, rel=1e-2)
    assert both.of("another") == both, "networks of a kind that nobody has seen are told by all others"


def test_kinds_that_are_alike_share_their_coefficients() -> None:
    alike = _networks(24, 1.1, 0.1, 0.02)
    assert fit([*_of("one", 0, alike[:12]), *_of("other", 12, alike[12:])]).kinds == ()


def test_a_kind_of_few_networks_has_none_of_its_own() -> None:
    few = _of("few", 20, _networks(3, 2.0, 0.0, 0.0, seed=2))
    assert [kind for kind, _ in fit([*_of("many", 0, _networks(16, 1.0, 0.0, 0.0)), *few]).kinds] in ([], ["many"])


def test_apply_all_is_apply() -> None:
    correction = Correction(a=1.2, b_ms=0.5, c_ms=0.1)
    assert correction.apply_all(np.array([1.0, 2.0]), np.array([3.0, 0.0])).tolist() == pytest.approx(
        [correction.apply(1.0, 3), correction.apply(2.0, 0)]
    )


def test_plain_data_round_trip_and_content_id() -> None:
    kinds = fit([*_of("a", 0, _networks(8, 1.0, 0.0, 0.0)), *_of("b", 8, _networks(8, 1.5, 0.0, 0.2))])
    assert kinds.kinds
    for correction in (IDENTITY, fit(_networks(20, 1.1, 0.2, 0.03, noise=0.05)), kinds):
        again = Correction.from_dict(json.loads(json.dumps(correction.to_dict())))
        assert again == correction
        assert again.correction_id == correction.correction_id
    assert replace(IDENTITY, a=1.01).correction_id != IDENTITY.correction_id


def test_from_dict_names_the_place() -> None:
    good = IDENTITY.to_dict()
    with pytest.raises(SpecError, match="slope") as caught:
        Correction.from_dict({**good, "slope": 1.0}, "devices[0].correction")
    assert caught.value.path == "devices[0].correction"
    with pytest.raises(SpecError, match="null") as caught:
        Correction.from_dict({**good, "a": "1"}, "c")
    assert caught.value.path == "c.a"
    with pytest.raises(SpecError, match="at least 0"):
        Correction.from_dict({**good, "radius": -0.1})
    with pytest.raises(SpecError, match="finite"):
        Correction.from_dict({**good, "a": None})
    with pytest.raises(SpecError, match="above 0"):
        Correction.from_dict({**good, "residual_sd": 0.0})
    with pytest.raises(SpecError, match="table of corrections"):
        Correction.from_dict({**good, "kinds": {"residual": 1}})
    with pytest.raises(SpecError, match="finite") as caught:
        Correction.from_dict({**good, "kinds": {"residual": {**good, "a": -1}}}, "c")
    assert caught.value.path == "c.kinds.residual.a"


@pytest.mark.parametrize(
    "bad",
    [
        Observation(0.0, 1, 1.0),
        Observation(1.0, 1, -1.0),
        Observation(1.0, -1, 1.0),
        Observation(math.nan, 1, 1),
        Observation(1.0, 1, 1.0, relsd=-0.1),
    ],
)
def test_impossible_observations_are_refused(bad: Observation) -> None:
    with pytest.raises(DataError) as caught:
        fit([Observation(1.0, 1, 1.0), bad])
    assert caught.value.path == "observations[1]"
