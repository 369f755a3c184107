"""How tests are shared out between processes: what is dear to make is made by one of them."""

from __future__ import annotations

from dynarch.tests.conftest import ROOT, TOGETHER, group_of, group_of_file


def test_users_of_a_dear_helper_stay_together() -> None:
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("test_*.py")]
    users = {helper: [file for file in files if f"{helper} import" in (ROOT / file).read_text()] for helper in TOGETHER}
    assert all(users.values()), "a helper that nobody imports by that name is not kept together"
    for helper, found in users.items():
        assert {group_of_file(file) for file in found if file != "tests/test_sharing_out.py"} <= set(
            TOGETHER.values()
        ), helper


def test_files_stay_whole_and_long_ones_are_spread() -> None:
    assert group_of("tests/test_readme.py::test_a") == group_of("tests/test_readme.py::test_b[1]")
    contract = "tests/spaces/test_contract.py::TestFamilies::test_"
    assert group_of(f"{contract}a[early_exit-residual]") == group_of(f"{contract}b[early_exit-residual]")
    assert group_of(f"{contract}a[early_exit-residual]") != group_of(f"{contract}a[cascade-residual]")
