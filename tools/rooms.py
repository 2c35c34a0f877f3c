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
    """Return what is not as the floors have it: imports that no arrow allows, and rooms without a floor."""
    package = folder.name
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
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
        elif here in ("", there) or there not in floor:  # names of the package's own face are no room
            is_allowed = here in ("", there) or not is_alone
        else:
            is_allowed = floor.get(there, 0) < floor.get(here, 0) and not is_alone
        if not is_allowed:
            where = ".".join(one.file.relative_to(folder.parent).with_suffix("").parts)
            wrong.append(f"{where}, line {one.line}: imports {one.module}")
    return list(dict.fromkeys(wrong))


def reduced(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leave out arrows that a way over other rooms makes."""

    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(other) for other in found[room]))

    return {
        room: {other for other in others if not any(other in reach(via) for via in others - {other})}
        for room, others in found.items()
    }


BOX, GAP, FLOOR, HEAD, MARGIN = 26, 14, 68, 46, 20  # of the picture, in pixels
CHARACTER = 7.4  # width of one at 13 pixels
STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1b1f24; } .name { font-weight: bold; font-size: 15px; }
rect { fill: #eef2f7; stroke: #8795a8; } path { fill: none; stroke: #8795a8; stroke-width: 1.2; }
marker path { fill: #8795a8; stroke: none; } .under { fill: #ffffff; stroke: #c5ced9; }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ee; } rect { fill: #273040; stroke: #6f7d92; }
path { stroke: #6f7d92; } marker path { fill: #6f7d92; } .under { fill: #171c24; stroke: #3a4453; } }
"""


def _width(room: str) -> float:
    return CHARACTER * len(room) + 18


def draw(root: Path = ROOT) -> str:
    """Return the picture of all packages as SVG: the highest floor on top, arrows to what a room imports."""
    parts, top, right = list[str](), MARGIN, 0.0
    for row in (("simulations", "bandit"), ("encoders", "storage")):
        left, tallest = float(MARGIN), 0
        for package in row:
            width, height, body = _package(root, package)
            parts += [f'<g transform="translate({left:.0f} {top})">', *body, "</g>"]
            left, tallest = left + width + MARGIN, max(tallest, height)
        top, right = top + tallest + MARGIN, max(right, left)
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    size = f'width="{right:.0f}" height="{top}" viewBox="0 0 {right:.0f} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="the rooms of the code">'
    return "\n".join([head, f"<style>{STYLE}</style>", tip, *parts, "</svg>\n"])


def _package(root: Path, package: str) -> tuple[float, int, list[str]]:
    """Return the width and height of one package's picture, and its elements."""
    floors = [sorted(rooms) for rooms in reversed(FLOORS[package])]
    rows = [sum(map(_width, rooms)) + GAP * (len(rooms) - 1) for rooms in floors]
    head = f"imports {', '.join(BELOW[package]) or 'none of ours'}"
    indent = MARGIN + 10 * len(package) + 24
    width = max(*rows, indent + CHARACTER * len(head) - MARGIN) + 2 * MARGIN
    height = HEAD + FLOOR * (len(floors) - 1) + BOX + MARGIN
    parts = [
        f'<rect class="under" width="{width:.0f}" height="{height}" rx="8"/>',
        f'<text class="name" x="{MARGIN}" y="28">{package}/</text><text x="{indent}" y="28">{head}</text>',
    ]
    middle: dict[str, tuple[float, int]] = {}
    for level, (rooms, wide) in enumerate(zip(floors, rows, strict=True)):
        left = (width - wide) / 2
        for room in rooms:
            middle[room] = (left + _width(room) / 2, HEAD + FLOOR * level)
            left += _width(room) + GAP
    for room, others in sorted(reduced(arrows(root / package)).items()):
        for other in sorted(others):
            (x, y), (to_x, end) = middle[room], middle[other]
            bend = min((end - y - BOX) / 2, 26)
            parts.append(
                f'<path d="M{x:.0f} {y + BOX}C{x:.0f} {y + BOX + bend:.0f} {to_x:.0f} {end - bend:.0f} '
                f'{to_x:.0f} {end - 2}" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in middle.items():
        wide = _width(room)
        parts.append(
            f'<rect x="{x - wide / 2:.0f}" y="{y}" width="{wide:.0f}" height="{BOX}" rx="5"/>'
            f'<text x="{x:.0f}" y="{y + 18}" text-anchor="middle">{room}</text>'
        )
    return width, height, parts


def main(argv: list[str]) -> None:
    """Print the rooms, or draw them to the file named."""
    if argv:
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
