"""The rooms of the code: `python -m tools.rooms` prints them, `python -m tools.rooms FILE.svg` draws them.

A room is a folder or a file directly in a package. Rooms stand on floors, and a room imports only from lower
ones, whatever an import stands in; so nothing goes round in a circle. Tests hold the source against this.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# Of each package, from the lowest floor up. A new room is named here first.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "encoders": (
        ("batches", "errors", "progress"),
        ("config", "locate"),
        ("bert", "recipe"),
        ("checkpoint", "forward", "rounding"),
        ("attribution",),
        ("text",),
        ("cache",),
        ("fields", "filling"),
        ("tuning",),
    ),
    "storage": (
        ("errors", "records"),
        ("learning_records", "schema", "validation"),
        ("database", "migrations"),
        ("topics",),
        ("maintenance",),
        ("store",),
    ),
    "bandit": (
        ("errors", "jax_runtime", "padding", "posterior"),
        ("csv_rows", "html_page", "retention", "types"),
        ("features", "validation"),
        ("model", "policy"),
        ("decision_log", "learning"),
        ("explanation", "serving", "warm_start"),
        ("engine",),
        ("cli",),
    ),
    "simulations": (
        ("calibration", "errors"),
        ("ope", "policies", "sweep"),
        ("delayed_feedback", "loop"),
        ("reports", "worlds"),
        ("grid_search",),
        ("experiments",),
        ("cli",),
    ),
}
# What else a package may import; the posterior is mathematics and imports nothing of ours.
BELOW: Mapping[str, tuple[str, ...]] = {
    "encoders": (),
    "storage": (),
    "bandit": ("encoders", "storage"),
    "simulations": ("bandit", "encoders", "storage"),
}
ALONE = ("bandit.posterior",)


class Import(NamedTuple):
    """One import of ours: where it stands, and what it names."""

    file: Path
    line: int
    module: str


def imports(folder: Path) -> Iterator[Import]:
    """Yield a package's imports of our packages, relative ones resolved."""
    for file in sorted(folder.rglob("*.py")):
        inside = [folder.name, *file.relative_to(folder).parts[:-1]]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                # `from bandit import engine` names a module, as `from bandit.engine import Engine` does.
                names = [f"{module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from (Import(file, node.lineno, name) for name in names if name.split(".")[0] in FLOORS)


def room_of(folder: Path, file: Path) -> str:
    """Return the room in which a file of a package stands; "" for the package's own face."""
    first = file.relative_to(folder).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def arrows(folder: Path) -> dict[str, set[str]]:
    """Return the rooms that each room of a package imports."""
    package, found = folder.name, dict[str, set[str]]()
    for file in folder.rglob("*.py"):
        found.setdefault(room_of(folder, file), set())
    for one in imports(folder):
        parts, here = one.module.split("."), room_of(folder, one.file)
        if parts[0] == package and len(parts) > 1 and here and parts[1] in found and parts[1] != here:
            found[here].add(parts[1])
    found.pop("", None)
    return found


def violations(folder: Path) -> list[str]:
    """Return what is not as the floors have it: imports that no arrow allows, and rooms without a floor.

    A package's own `__init__.py` may import all of it, so it stands above the highest room that it imports.
    """
    package = folder.name
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
    shown = {
        one.module.split(".")[1]
        for one in imports(folder)
        if one.module.startswith(f"{package}.") and not room_of(folder, one.file)
    }
    face = max((floor[room] for room in shown if room in floor), default=-1)
    wrong = []
    for file in sorted(folder.rglob("*.py")):
        room = room_of(folder, file)
        if room and room not in floor:
            wrong.append(f"{package}/{room}: no floor names this room; give it one in tools/rooms.py")
    for one in imports(folder):
        here, (top, *rest) = room_of(folder, one.file), one.module.split(".")
        there = rest[0] if rest else ""
        is_alone = f"{package}.{here}" in ALONE
        if top != package:
            is_allowed = top in BELOW[package] and not is_alone
        elif here in ("", there):
            is_allowed = True
        else:  # what is no room is a name of the package's face
            is_allowed = floor.get(there, face) < floor.get(here, 0) and not is_alone
        if not is_allowed:
            where = ".".join(one.file.relative_to(folder.parent).with_suffix("").parts)
            wrong.append(f"{where}, line {one.line}: imports {one.module}")
    return list(dict.fromkeys(wrong))


def main(argv: list[str]) -> None:
    """Print the rooms, or draw them to the file named."""
    if argv:
        from tools.rooms_picture import draw

        Path(argv[0]).write_text(draw(), encoding="utf-8")
        return
    for package, floors in FLOORS.items():
        found = arrows(ROOT / package)
        n_arrows = sum(map(len, found.values()))
        print(f"{package}: {len(found)} rooms on {len(floors)} floors, {n_arrows} arrows")  # noqa: T201
        for rooms in reversed(floors):
            print("  ", *rooms)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
