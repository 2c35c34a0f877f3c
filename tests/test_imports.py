"""The arrows of the architecture: which room may import which, read from the source, and their picture."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.paths import DOCS, ROOT
from tools.rooms import FLOORS, arrows, imports, violations
from tools.rooms_picture import draw, reduced

SIDES = ("x", "y", "width", "height")


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


@pytest.mark.parametrize(("room", "n_wrong"), [("engine", 1), ("learning", 1), ("cli", 0)])
def test_the_packages_face_stands_above_what_it_shows(tmp_path: Path, room: str, n_wrong: int) -> None:
    folder = written(tmp_path, f"bandit/{room}/one.py", "def f():\n    from bandit import Engine")
    (folder / "__init__.py").write_text("from bandit.engine import Engine")
    assert len(violations(folder)) == n_wrong


def test_arrows_that_others_make_are_left_out_of_the_picture() -> None:
    found = {"top": {"middle", "low", "side"}, "middle": {"low"}, "low": set(), "side": set()}
    assert reduced(found) == {"top": {"middle", "side"}, "middle": {"low"}, "low": set(), "side": set()}


def test_the_picture_is_of_these_imports() -> None:
    same = (DOCS / "rooms.svg").read_text(encoding="utf-8") == draw()
    assert same, "rooms have other arrows now: run `python -m tools.rooms docs/rooms.svg`"


def test_nothing_in_the_picture_hides_another() -> None:
    """Boxes stand apart, inside their package and as wide as their names; arrows pass between them."""
    svg = "{http://www.w3.org/2000/svg}"
    packages = ElementTree.fromstring(draw()).findall(f"{svg}g")  # noqa: S314  our own text
    assert len(packages) == len(FLOORS)
    for package in packages:
        frame, *boxes = ({k: int(v) for k, v in r.items() if k in SIDES} for r in package.iter(f"{svg}rect"))
        names = [text for text in package.iter(f"{svg}text") if text.get("text-anchor")]
        for box, name in zip(boxes, names, strict=True):
            assert box["width"] >= 8 * len(name.text or "")
            assert 0 < box["x"] < box["x"] + box["width"] < frame["width"]
            assert 0 < box["y"] < box["y"] + box["height"] < frame["height"]
        floors = {y: sorted(b["x"] for b in boxes if b["y"] == y) for y in (box["y"] for box in boxes)}
        widths = {(box["x"], box["y"]): box["width"] for box in boxes}
        for y, lefts in floors.items():
            assert all(left + widths[left, y] < right for left, right in pairwise(lefts))
        passed = re.findall(
            r"(\d+) (\d+)V(\d+)", " ".join(p.get("d", "") for p in package.iter(f"{svg}path"))
        )
        assert passed
        for x, y, _ in (map(int, found) for found in passed):
            assert not any(left <= x <= left + widths[left, y] for left in floors[y])


def test_the_page_of_the_architecture_names_every_room() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = page[page.index("## Rooms") : page.index("## A decision")].split("| **")[1:]
    tables = {row.split("/")[0]: row for row in rows}
    for package, floors in FLOORS.items():
        for room in (room for floor in floors for room in floor):
            assert re.search(rf"`{room}(/|\.py)`", tables[package]), f"{package}/{room}"
