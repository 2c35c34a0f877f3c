"""The arrows of the architecture: who may import whom, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paths import ROOT

PACKAGES = ("encoders", "storage", "bandit", "simulations")
ALLOWED = {
    "encoders": {"encoders"},
    "storage": {"storage"},
    "bandit": {"bandit", "encoders", "storage"},
    "bandit.posterior": {"bandit.posterior"},
    "simulations": {"simulations", "bandit", "encoders", "storage"},
}


class Import(NamedTuple):
    """One import of ours: where it stands, what it names, and whether it runs only when a function does."""

    file: Path
    line: int
    module: str
    is_lazy: bool


def imports(folder: Path, package: str) -> Iterator[Import]:
    """Yield a package's imports of our four packages, relative ones resolved."""
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        place = parts[:-1]
        yield from _of(file, ast.parse(file.read_text()), place, is_lazy=False)


def _of(file: Path, node: ast.AST, place: list[str], *, is_lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            base = place[: len(place) - child.level + 1] if child.level else []
            module = ".".join([*base, *([child.module] if child.module else [])])
            # `from bandit import engine` names a module as well as `from bandit.engine import Engine` does.
            names = [f"{module}.{alias.name}" for alias in child.names]
        else:
            inside = is_lazy or isinstance(child, ast.FunctionDef) or _is_for_types_only(child)
            yield from _of(file, child, place, is_lazy=inside)
            continue
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield Import(file, child.lineno, name, is_lazy)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def violations(folder: Path, package: str) -> list[str]:
    """Return the imports that no arrow allows."""
    wrong = []
    for found in imports(folder, package):
        module = ".".join([package, *found.file.relative_to(folder).with_suffix("").parts])
        owner = "bandit.posterior" if module.startswith("bandit.posterior.") else package
        is_allowed = any(f"{found.module}.".startswith(f"{allowed}.") for allowed in ALLOWED[owner])
        is_command = f"{module}.".startswith("bandit.cli.") and found.is_lazy
        if not is_allowed and not (is_command and found.module.split(".")[0] == "simulations"):
            wrong.append(f"{module}, line {found.line}: imports {found.module}")
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_arrows_of_the_architecture(package: str) -> None:
    folder = ROOT / package
    assert list(imports(folder, package)), "nothing was found to check"
    assert violations(folder, package) == []


@pytest.mark.parametrize(
    ("package", "file", "source"),
    [
        ("encoders", "text.py", "import storage"),
        ("encoders", "text.py", "def f():\n    from bandit import Engine"),
        ("storage", "store.py", "from encoders.errors import EncoderError"),
        ("bandit", "engine.py", "def f():\n    import simulations.worlds"),
        ("bandit", "cli/demo.py", "from simulations import worlds"),
        ("bandit", "posterior/state.py", "from bandit.features import DIM"),
        ("bandit", "posterior/state.py", "from ..features import DIM"),
        ("bandit", "posterior/state.py", "from bandit import features"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, package: str, file: str, source: str) -> None:
    path = tmp_path / package / file
    path.parent.mkdir(parents=True)
    path.write_text(source)

    assert len(violations(tmp_path / package, package)) == 1


@pytest.mark.parametrize(
    ("package", "file", "source"),
    [
        ("bandit", "cli/demo.py", "def f():\n    from simulations import worlds"),
        ("bandit", "posterior/state.py", "from .sites import Sites"),
        ("bandit", "posterior/state.py", "from bandit.posterior.sites import Sites"),
        ("simulations", "run.py", "from bandit.thompson import KAPPA"),
    ],
)
def test_a_right_arrow_passes(tmp_path: Path, package: str, file: str, source: str) -> None:
    path = tmp_path / package / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert list(imports(tmp_path / package, package))
    assert violations(tmp_path / package, package) == []
