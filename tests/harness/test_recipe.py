# SPDX-License-Identifier: GPL-2.0-only
"""What goes into a kernel: every input counts, and fragments and patches are taken in order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernel import config
from kernel import recipe as recipes
from kernel.errors import UsageError
from kernel.recipe import recipe, with_patch
from tests.harness.pretend import COUNT, FIX, PATCH, make_ingredients


@pytest.fixture
def ingredients(tmp_path: Path) -> Path:
    return make_ingredients(tmp_path)


def test_every_input_changes_the_hash(ingredients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [recipe("6.12", ingredients).key("source", "gcc 1")]

    def note(source: str = "source", compiler: str = "gcc 1", name: str = "6.12") -> None:
        keys.append(recipe(name, ingredients).key(source, compiler))

    note(source="another source")
    note(compiler="gcc 2")
    note(name="stock-6.12")
    (ingredients / "patches/6.12/0001-change.patch").write_text(PATCH + "\n")
    note()
    (ingredients / "patches/6.12/0002-more.patch").write_text(PATCH)
    note()
    (ingredients / "fixes/6.12/0001-fix.patch").write_text(FIX + "\n")
    note()
    (ingredients / "uml.config").write_text("CONFIG_ONE=y\n")
    note()
    (ingredients / "fixes/6.12/uml.config").write_text("CONFIG_THREE=y\n")
    note()
    note(name="counting-6.12")
    (ingredients / "flavours/counting-6.12/uml.config").write_text("CONFIG_TWO=7\n")
    note(name="counting-6.12")
    (ingredients / "flavours/counting-6.12/0001-count.patch").write_text(COUNT + "\n")
    note(name="counting-6.12")
    monkeypatch.setattr(recipes, "VERSION", recipes.VERSION + 1)
    note()
    assert len(set(keys)) == len(keys) == 13


def test_the_same_inputs_give_the_same_hash(ingredients: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(ingredients, copy)
    assert recipe("6.12", ingredients).key("s", "c") == recipe("6.12", copy).key("s", "c")


def test_one_patch_more_makes_another_kernel_in_the_same_tree(ingredients: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.patch"
    with pytest.raises(UsageError, match=r"more\.patch: no such patch"):
        with_patch("6.12", more, ingredients)
    more.write_text(COUNT)
    plain, extended = recipe("6.12", ingredients), with_patch("6.12", more, ingredients)
    assert extended.name == "6.12+more" and extended.patches == (*plain.patches, more)
    assert extended.key("s", "c") != plain.key("s", "c")
    assert extended.tree_key("s", "c") == plain.tree_key("s", "c")


def test_patches_do_not_change_the_tree(ingredients: Path) -> None:
    patched, stock = recipe("6.12", ingredients), recipe("stock-6.12", ingredients)
    assert patched.tree_key("s", "c") == stock.tree_key("s", "c")
    assert (patched.suffix, stock.suffix) == ("-nofollow", "")
    assert recipe("counting-6.12", ingredients).tree_key("s", "c") != patched.tree_key("s", "c"), "its options differ"


def test_fragments_are_common_then_of_the_series_then_of_the_flavour(ingredients: Path) -> None:
    (ingredients / "fixes/6.12/uml.config").write_text("CONFIG_THREE=y\nCONFIG_ONE=m\n")
    asked = config.requested(recipe("counting-6.12", ingredients).fragment())
    assert asked == {"CONFIG_ONE": "CONFIG_ONE=m", "CONFIG_TWO": "CONFIG_TWO=6", "CONFIG_THREE": "CONFIG_THREE=y"}
    assert config.requested(recipe("6.12", ingredients).fragment())["CONFIG_TWO"] == "CONFIG_TWO=5"


def test_a_flavour_is_of_one_series(ingredients: Path) -> None:
    (ingredients / "patches/6.1").mkdir()
    assert recipes.names(ingredients) == ["6.1", "stock-6.1", "6.12", "stock-6.12", "counting-6.12"]
    with pytest.raises(UsageError, match=r"unknown kernel 'counting-6\.1'"):
        recipe("counting-6.1", ingredients)
