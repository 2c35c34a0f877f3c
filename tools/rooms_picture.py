"""The picture of the rooms, as SVG: `python -m tools.rooms FILE.svg` writes it.

The highest floor is on top, arrows go to what a room imports; those that a way over other rooms makes are
left out, and long ones pass between boxes.
"""

from collections.abc import Mapping
from itertools import combinations, pairwise
from operator import add
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tools.rooms import BELOW, FLOORS, ROOT, arrows


def reduced(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leave out arrows that a way over other rooms makes."""

    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(other) for other in found[room]))

    return {
        room: {other for other in others if not any(other in reach(via) for via in others - {other})}
        for room, others in found.items()
    }


BOX, SPACE, FLOOR, HEAD, MARGIN, GUTTER = 26, 14, 72, 56, 20, 46  # of the picture, in pixels
CHARACTER = 7.9  # width of one at 13 pixels
PORT = 10  # between the ends of arrows at one box
ROUNDS = 60  # of ordering and of placing; in the last ones nothing moves
STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1b1f24; } .name { font-weight: bold; font-size: 15px; }
rect { fill: #eef2f7; stroke: #8795a8; } path { fill: none; stroke: #8795a8; stroke-width: 1.2; }
marker path { fill: #8795a8; stroke: none; } .under { fill: #ffffff; stroke: #c5ced9; }
.note { fill: #59636e; } .package { stroke-width: 2; }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ee; } rect { fill: #273040; stroke: #6f7d92; }
path { stroke: #8593a8; } marker path { fill: #8593a8; } .under { fill: #171c24; stroke: #3a4453; }
.note { fill: #9aa5b4; } }
"""
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" '
    'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)
COLUMNS = (("simulations", "encoders"), ("bandit", "storage"))  # of packages, from the top


class Stop(NamedTuple):
    """What stands on a floor: a room, or a way on which arrows to a lower room pass this floor."""

    level: int
    room: str
    is_way: bool = False

    @property
    def width(self) -> float:
        """How much of the floor it takes."""
        return 0 if self.is_way else CHARACTER * len(self.room) + 18


Line = tuple[Stop, Stop]  # from a floor to the next one down
Frame = tuple[float, float, float, float]  # left, top, right, bottom


def _lines(package: str, found: Mapping[str, set[str]]) -> list[Line]:
    """Cut arrows at the floors that they pass; those to one room run together from there on."""
    level = {room: i for i, rooms in enumerate(reversed(FLOORS[package])) for room in rooms}
    lines = set[Line]()
    for room, others in found.items():
        for other in others:
            ways = [Stop(i, other, is_way=True) for i in range(level[room] + 1, level[other])]
            lines |= set(pairwise([Stop(level[room], room), *ways, Stop(level[other], other)]))
    return sorted(lines)


def _crossings(floors: list[list[Stop]], lines: list[Line]) -> int:
    at = {stop: i for stops in floors for i, stop in enumerate(stops)}
    ends = [(upper.level, at[upper], at[lower]) for upper, lower in lines]
    return sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a, b in combinations(ends, 2))


def _ordered(floors: list[list[Stop]], lines: list[Line]) -> list[list[Stop]]:
    """Order the stops of each floor so that few lines cross: by the middle of those above, then below."""
    best = floors
    for turn in range(ROUNDS):
        is_down = turn % 2 == 0
        floors = [list(stops) for stops in floors]
        for stops in floors if is_down else reversed(floors):
            at = {stop: i / len(each) for each in floors for i, stop in enumerate(each)}
            ends = {
                stop: [at[line[not is_down]] for line in lines if line[is_down] == stop] for stop in stops
            }
            stops.sort(key=lambda stop: fmean(ends[stop] or [at[stop]]))
        for stops in floors:  # and what swapping two neighbours still gains
            for i in range(len(stops) - 1):
                before = _crossings(floors, lines)
                stops[i : i + 2] = reversed(stops[i : i + 2])
                if _crossings(floors, lines) >= before:
                    stops[i : i + 2] = reversed(stops[i : i + 2])
        best = min(best, floors, key=lambda each: _crossings(each, lines))
    return best


def _placed(floors: list[list[Stop]], lines: list[Line]) -> dict[Stop, float]:
    """Put each stop as near to its neighbours as order and space allow; from the left end of the widest."""
    x = {stop: 0.0 for stops in floors for stop in stops}
    near: dict[Stop, list[Stop]] = {stop: [] for stop in x}
    for upper, lower in lines:
        pull = 4 if upper.is_way and lower.is_way else 1  # so that ways are straight
        near[upper] += [lower] * pull
        near[lower] += [upper] * pull
    for turn in range(ROUNDS):
        for stops in floors if turn % 2 else reversed(floors):
            # Least squares: stops that want the same place stand side by side around the mean of it.
            end, offsets, blocks = 0.0, list[float](), list[list[float]]()
            for stop in stops:
                offsets.append(end + stop.width / 2)
                end += stop.width + SPACE
                blocks.append([fmean(x[other] for other in near[stop] or [stop]) - offsets[-1]])
                while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
                    blocks[-2:] = [blocks[-2] + blocks[-1]]
            x.update(zip(stops, map(add, (fmean(b) for b in blocks for _ in b), offsets), strict=True))
    left = min(x[stop] - stop.width / 2 for stop in x)
    return {stop: x[stop] - left for stop in x}


def _package(root: Path, package: str) -> tuple[float, float, list[str]]:
    """Return the width and height of one package's picture, and its elements."""
    lines = _lines(package, reduced(arrows(root / package)))
    n_floors = len(FLOORS[package])
    stops = {Stop(i, room) for i, rooms in enumerate(reversed(FLOORS[package])) for room in rooms}
    stops |= {stop for line in lines for stop in line}
    floors = [sorted(stop for stop in stops if stop.level == level) for level in range(n_floors)]
    x = _placed(_ordered(floors, lines), lines)
    head = f"imports {', '.join(BELOW[package]) or 'none of ours'}"
    wide = max(x[stop] + stop.width / 2 for stop in x)
    width = max(wide, CHARACTER * len(head)) + 2 * MARGIN
    x = {stop: x[stop] + (width - wide) / 2 for stop in x}

    def port(line: Line, end: int) -> float:
        """Return where a line meets its stop: at a box side by side, in the order of their other ends."""
        stop, other = line[end], 1 - end
        all_ = sorted((line for line in lines if line[end] == stop), key=lambda each: x[each[other]])
        return x[stop] + (0 if stop.is_way else PORT * (all_.index(line) - (len(all_) - 1) / 2))

    parts = [
        f'<rect class="under" width="{width:.0f}" height="{_height(n_floors)}" rx="8"/>',
        f'<text class="name" x="{MARGIN}" y="24">{package}/</text>',
        f'<text class="note" x="{MARGIN}" y="43">{head}</text>',
    ]
    for line in lines:
        top, bottom = HEAD + FLOOR * line[0].level + BOX, HEAD + FLOOR * line[1].level
        way = _curve(port(line, 0), top, port(line, 1), bottom)
        parts.append(
            f'<path d="{way}V{bottom + BOX}"/>'
            if line[1].is_way
            else f'<path d="{way}" marker-end="url(#tip)"/>'
        )
    for stop in sorted(stop for stop in x if not stop.is_way):
        left, y = x[stop] - stop.width / 2, HEAD + FLOOR * stop.level
        box = f'<rect x="{left:.0f}" y="{y}" width="{stop.width:.0f}" height="{BOX}" rx="5"/>'
        parts.append(f'{box}<text x="{x[stop]:.0f}" y="{y + 18}" text-anchor="middle">{stop.room}</text>')
    return width, _height(n_floors), parts


def _height(n_floors: int) -> int:
    return HEAD + FLOOR * (n_floors - 1) + BOX + MARGIN


def _curve(x: float, top: float, to_x: float, bottom: float) -> str:
    middle = (top + bottom) / 2
    return f"M{x:.0f} {top:.0f}C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {bottom:.0f}"


def draw(root: Path = ROOT) -> str:
    """Return the picture of all packages as SVG: the highest floor on top, arrows to what a room imports."""
    drawn = {package: _package(root, package) for package in FLOORS}
    parts, frames = list[str](), dict[str, Frame]()
    left, second = float(MARGIN), MARGIN + GUTTER + max(drawn[column[0]][1] for column in COLUMNS)
    for column in COLUMNS:
        for package, top in zip(column, (MARGIN, second), strict=True):
            width, height, body = drawn[package]
            frames[package] = (left, top, left + width, top + height)
            parts += [f'<g transform="translate({left:.0f} {top:.0f})">', *body, "</g>"]
        left = max(frames[package][2] for package in column) + GUTTER
    for package, others in reduced({name: set(below) for name, below in BELOW.items()}).items():
        for other in sorted(others):
            way = _between(frames[package], frames[other])
            parts.append(f'<path class="package" d="{way}" marker-end="url(#tip)"/>')
    right, bottom = (max(frame[i] for frame in frames.values()) + MARGIN for i in (2, 3))
    size = f'width="{right:.0f}" height="{bottom:.0f}" viewBox="0 0 {right:.0f} {bottom:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="the rooms of the code">'
    return "\n".join([head, f"<style>{STYLE}</style>", TIP, *parts, "</svg>\n"])


def _between(one: Frame, other: Frame) -> str:
    """Return the arrow from one package's frame to another's, beside or below it."""
    if one[1] == other[1]:
        return f"M{one[2]:.0f} {one[1] + HEAD:.0f}H{other[0]:.0f}"
    is_straight = one[0] == other[0]
    return _curve(one[0] + GUTTER, one[3], other[0] + GUTTER if is_straight else other[2] - GUTTER, other[1])
