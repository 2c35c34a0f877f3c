"""A page of pictures and tables that is one file and needs nothing but a browser."""

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bandit.errors import PageError

# name -> (on a light page, on a dark page)
THEME: Final = {
    "ink": ("#1f2533", "#e8ebf2"),
    "muted": ("#5d6576", "#a3abbb"),
    "grid": ("#e2e5eb", "#343b49"),
    "paper": ("#fffffe", "#1a1e27"),
    "blue": ("#0068a8", "#62b4f2"),
    "vermilion": ("#c04e00", "#f3915a"),
    "green": ("#007f5c", "#45c9a0"),
    "purple": ("#a34d85", "#de97c5"),
    "amber": ("#946400", "#e3b341"),
    "brown": ("#7a5242", "#c79c88"),
}
# (picture, prefix of its ids, what a screen reader says) -> an <svg> element whose colours are THEME's
Svg = Callable[[Any, str, str], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Words and numbers as they are to be read; columns of numbers are set flush right by themselves.

    Attributes:
        header: names of the columns.
        rows: cells, formatted; as many as names in the header. What follows a line's end is small print.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def with_small_print(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose second column, the settings of the first one, stands below it in small print."""
    cells = (
        (f"{policy}{_BREAK}{setting}" if setting != "-" else policy, *numbers)
        for policy, setting, *numbers in rows
    )
    return Table(header=(header[0], *header[2:]), rows=tuple(cells))


class Piece(NamedTuple):
    """A piece of a text that is shaded.

    Attributes:
        text: as it stands.
        strength: from -1, lowers, to 1, raises; 0 is not shaded.
        note: stands beside it in small print.
    """

    text: str
    strength: float = 0.0
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page.

    Attributes:
        heading: what the part shows, in a few words.
        caption: how to read it, for someone who doesn't know the field.
        picture: whatever `write_html` is given a way to draw, or none.
        table: the numbers, or none; folded away where there is a picture or a text.
        texts: names of texts, and each text in pieces.
        name: in a word; names the picture's file.
    """

    heading: str
    caption: str
    picture: Any = None
    table: Table | None = None
    texts: tuple[tuple[str, tuple[Piece, ...]], ...] = ()
    name: str = ""


def write_html(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    settings: Mapping[str, object] | None = None,
    svg: Svg | None = None,
) -> None:
    """Write a page that holds everything in one file: pictures as inline SVG, no script, nothing fetched.

    It follows the reader's light or dark theme and fits a phone. The same input gives the same bytes.

    Args:
        path: where to; missing folders are made.
        title: heading of the page.
        sections: its parts, in order.
        lead: a sentence or two under the title: what was done, and what came out.
        settings: name -> value of all that is needed to make the page again; the last part.
        svg: draws the sections' pictures; a page without pictures needs none.

    Raises:
        PageError: when the title is blank, there are no sections, a table's rows do not fit its header, or
            nothing draws the pictures.
    """
    if not title.strip():
        raise PageError(f"expected a title for {path.name}, got {title!r}")
    if not sections:
        raise PageError(f"expected at least one section for {path.name}, got none")
    if svg is None and any(section.picture is not None for section in sections):
        raise PageError(f"expected a way to draw the pictures of {path.name}, got none")
    made_by = f"settings {settings_id(settings)}" if settings else ""
    parts = [
        _section(section, f"p{number}", made_by, svg) for number, section in enumerate(sections, start=1)
    ]
    if settings:
        table = Table(
            header=("setting", "value"), rows=tuple((name, _words(v)) for name, v in settings.items())
        )
        caption = f"All that is needed to make this page again: {made_by}, as every picture says."
        parts.append(_section(Section(heading="Settings", caption=caption, table=table), "settings", ""))
    page = _PAGE.format(
        title=_escaped(title),
        lead=f"<p class=lead>{_escaped(lead)}</p>" if lead else "",
        light=_colours(0),
        dark=_colours(1),
        body="\n".join(parts),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def settings_id(settings: Mapping[str, object]) -> str:
    """Return a short name of some settings: the same ones have the same name, others another.

    Example:
        >>> settings_id({"seeds": 8}), settings_id({"seeds": 9})
        ('82ac2e9f', '51c0f9b4')
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _section(section: Section, name: str, made_by: str, svg: Svg | None = None) -> str:
    """Lay out one section; its numbers are folded away under a picture."""
    text = f"<h2>{_escaped(section.heading)}</h2>"
    caption = _escaped(section.caption)
    table = _table(section.table, section.heading) if section.table else ""
    if section.picture is None and not section.texts:
        return f"<section{' class=wide' if table else ''}>{text}<p>{caption}</p>{table}</section>"
    if svg is None or section.picture is None:
        text += "".join(map(_shaded, section.texts)) + f"<p>{caption}</p>"
    else:
        picture = svg(section.picture, name, _escaped(section.heading))
        text += f"<figure>{picture}<figcaption>{caption} <small>{made_by}</small></figcaption></figure>"
    if table:
        text += f"<details><summary>The numbers</summary>{table}</details>"
    return f"<section>{text}</section>"


def _shaded(named: tuple[str, tuple[Piece, ...]]) -> str:
    """Lay out a text in pieces; the line under one, and its sign, say what its colour says."""
    name, pieces = named
    text = "".join(
        f"<mark class={'raises' if piece.strength > 0 else 'lowers'} style='--of:{abs(piece.strength):.0%}'>"
        f"{_escaped(piece.text)}<small>{_escaped(piece.note)}</small></mark>"
        if piece.strength
        else _escaped(piece.text)
        for piece in pieces
    )
    return f"<p class=shaded><span>{_escaped(name)}</span>{text}</p>"


def _table(table: Table, heading: str) -> str:
    """Lay out a table; the engine's rows stand out."""
    for number, row in enumerate(table.rows, start=1):
        if len(row) != len(table.header):
            raise PageError(
                f"expected {len(table.header)} cells in row {number} of the table under {heading!r}, "
                f"got {len(row)}"
            )
    columns = zip(*table.rows, strict=True)
    kinds = ["number" if all(map(_NUMBER.match, column)) else "words" for column in columns] or [
        "words"
    ] * len(table.header)
    head = _row("th", table.header, kinds)
    body = "".join(
        f"<tr{' class=engine' if row[0].split(_BREAK)[0] == 'engine' else ''}>{_row('td', row, kinds)}</tr>"
        for row in table.rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    return "".join(
        f"<{tag} class={kind}>{_cell(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
    )


def _cell(cell: str) -> str:
    first, *small = map(_escaped, cell.split(_BREAK))
    return first + "".join(f"<small>{line}</small>" for line in small)


def _escaped(text: str) -> str:
    """Make text safe inside elements and attributes, and keep a number and its % on one line."""
    return re.sub(r"(?<=\d) %", "\u00a0%", html.escape(text))


def _words(value: object) -> str:
    """Write a setting as a person would."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " / ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _colours(theme: int) -> str:
    return ";".join(f"--{token}:{colours[theme]}" for token, colours in THEME.items())


_BREAK: Final = "\n"
_NUMBER: Final = re.compile(
    r"((± )?[−+-]?[0-9][0-9,.]*( %| points)?( ± [0-9.,]+( %| points)?)?( \([0-9.,]+ %\))?|–|)$"
)
_PAGE: Final = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>{title}</title>
<style>
:root {{ {light}; --page: #f4f5f8 }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark}; --page: #11141a }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
  -webkit-text-size-adjust: 100% }}
main {{ max-width: 40rem; margin: 0 auto; padding: 2.5rem 1rem 4rem }}
.wide {{ margin-inline: calc((100% - min(100vw - 3rem, 62rem)) / 2) }}
.wide p {{ max-width: 44rem }}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; text-wrap: balance }}
h2 {{ font-size: 1.15rem; line-height: 1.3; margin: 0 0 .75rem }}
.lead {{ color: var(--muted); font-size: 1.06rem; margin: 0 0 1.75rem }}
section {{ background: var(--paper); border: 1px solid var(--grid); border-radius: .75rem;
  padding: 1.4rem 1.5rem; margin: 0 0 1.25rem }}
section p {{ margin: 0 0 .75rem; color: var(--muted) }}
figure {{ margin: 0 }}
svg {{ display: block; width: 100%; height: auto; overflow: visible }}
figcaption {{ color: var(--muted); font-size: .92rem; margin-top: .6rem }}
figcaption small {{ white-space: nowrap; font-size: .78rem }}
details {{ margin-top: .8rem }}
summary {{ cursor: pointer; color: var(--blue); font-size: .92rem }}
.scroll {{ overflow-x: auto; margin-top: .5rem }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }}
th, td {{ padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--grid); text-align: left;
  vertical-align: top }}
th {{ color: var(--muted); font-weight: 500 }}
.shaded {{ color: var(--ink); font-size: 1.1rem; line-height: 2.1; overflow-wrap: anywhere }}
.shaded span {{ display: block; color: var(--muted); font-size: .85rem; line-height: 1.3 }}
mark {{ color: inherit; padding: .1rem .15rem; border-radius: .2rem .2rem 0 0;
  background: color-mix(in srgb, color-mix(in srgb, var(--hue) 45%, var(--paper)) var(--of), var(--paper)) }}
mark small {{ margin-left: .25em; font-size: .7rem; white-space: nowrap }}
.raises {{ --hue: var(--blue); border-bottom: 2px solid var(--hue) }}
.lowers {{ --hue: var(--vermilion); border-bottom: 2px dashed var(--hue) }}
td small {{ display: block; color: var(--muted); font-size: .78rem; font-weight: 400; line-height: 1.35;
  white-space: normal }}
.words {{ overflow-wrap: anywhere }}
.words:first-child {{ min-width: 6rem }}
.number {{ text-align: right; white-space: nowrap }}
th.number {{ white-space: normal }}
.engine td {{ font-weight: 650 }}
@media (max-width: 30rem) {{
  main {{ padding: 1.5rem .5rem 3rem }}
  h1, .lead {{ padding: 0 .5rem }}
  section {{ padding: 1rem .75rem }}
  svg {{ width: calc(100% + .8rem); margin: 0 -.4rem }}
}}
@media (max-width: 43rem) {{ .wide {{ margin-inline: 0 }} }}
@media print {{
  :root {{ {light} }}
  @page {{ margin: 14mm }}
  body {{ background: none; font-size: 10.5pt; -webkit-print-color-adjust: exact; print-color-adjust: exact }}
  main {{ max-width: none; padding: 0 }}
  section, .wide {{ border: 0; border-top: 1px solid var(--grid); border-radius: 0; padding: 1rem 0;
    margin: 0; break-inside: avoid }}
  section:has(tbody tr:nth-child(16)) {{ break-inside: auto }}
  tr {{ break-inside: avoid }}
  h2 {{ break-after: avoid }}
  svg {{ max-width: 11.5cm; margin: 0 auto }}
  details {{ display: none }}
}}
</style>
<main>
<h1>{title}</h1>
{lead}
{body}
</main>
</html>
"""
