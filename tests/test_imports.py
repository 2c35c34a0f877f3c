"""The arrows of the architecture: which room may import which, read from the source, and their picture."""

import re
from pathlib import Path

import pytest

from tests.paths import DOCS, ROOT
from tools.rooms import FLOORS, arrows, draw, imports, reduced, violations


@pytest.mark.parametrize("package", FLOORS)
def test_only_the_arrows_of_the_architecture(package: str) -> None:
    assert list(imports(ROOT / package)), "nothing was found to check"
    assert violations(ROOT / package) == []


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_stands_on_one_floor_and_is_there(package: str) -> None:
    named = [room for floor in FLOORS[package] for room in floor]
    assert sorted(named) == sorted(arrows(ROOT / package))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("encoders/text.py", "import storage"),
        ("encoders/text.py", "def f():\n    from bandit import Engine"),
        ("encoders/errors.py", "from .text import TextEncoder"),
        ("storage/store.py", "from encoders.errors import EncoderError"),
        ("storage/topics/decisions.py", "from storage.store import Store"),
        ("bandit/engine.py", "def f():\n    import simulations.worlds"),
        ("bandit/cli/demo.py", "def f():\n    from simulations import worlds"),
        ("bandit/posterior/state.py", "from bandit.features.design import DIM"),
        ("bandit/posterior/state.py", "from ..features import DIM"),
        ("bandit/posterior/state.py", "from bandit import features"),
        ("bandit/posterior/state.py", "from storage import Store"),
        (
            "bandit/policy/thompson.py",
            "if TYPE_CHECKING:\n    from bandit.learning import view",
        ),
        ("bandit/features/design.py", "from bandit import engine"),
        ("bandit/attic/old.py", "import json"),
        ("simulations/worlds/shop.py", "from simulations.experiments import demo"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, file: str, source: str) -> None:
    assert len(violations(written(tmp_path, file, source))) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("bandit/__init__.py", "def f():\n    from bandit.engine import Engine"),
        ("bandit/posterior/state.py", "from .sites import Sites"),
        ("bandit/posterior/state.py", "from bandit.posterior.sites import Sites"),
        ("bandit/policy/thompson.py", "from bandit.posterior import Gaussian"),
        ("bandit/cli/arms.py", "from bandit import Engine"),
        ("storage/topics/decisions.py", "from storage.records import DecisionRecord"),
        ("simulations/loop.py", "from bandit.policy.thompson import KAPPA"),
    ],
)
def test_a_right_arrow_passes(tmp_path: Path, file: str, source: str) -> None:
    folder = written(tmp_path, file, source)
    assert list(imports(folder))
    assert violations(folder) == []


def written(folder: Path, file: str, source: str) -> Path:
    """Write a file of a package, and return the package."""
    path = folder / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return folder / file.split("/", maxsplit=1)[0]


def test_arrows_that_others_make_are_left_out_of_the_picture() -> None:
    found = {"top": {"middle", "low", "side"}, "middle": {"low"}, "low": set(), "side": set()}
    assert reduced(found) == {"top": {"middle", "side"}, "middle": {"low"}, "low": set(), "side": set()}


def test_the_picture_is_of_these_imports() -> None:
    same = (DOCS / "rooms.svg").read_text(encoding="utf-8") == draw()
    assert same, "rooms have other arrows now: run `python -m tools.rooms docs/rooms.svg`"


def test_the_page_of_the_architecture_names_every_room_and_only_files_that_are_there() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = page[page.index("## Rooms") : page.index("## A decision")].split("| **")[1:]
    tables = {row.split("/")[0]: row for row in rows}
    for package, floors in FLOORS.items():
        for room in (room for floor in floors for room in floor):
            assert re.search(rf"`{room}(/|\.py)`", tables[package]), f"{package}/{room}"
    for path in re.findall(r"`((?:bandit|encoders|simulations|storage|tests|tools)/[\w/.]*)`", page):
        assert (ROOT / path).exists(), path
