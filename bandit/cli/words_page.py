"""A page that shows what the words of creatives carry: one file, to look at and to pass on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bandit.cli.explaining import LEAST, largest, shift
from bandit.cli.printing import percent
from bandit.types import Explanation, Wording

if TYPE_CHECKING:
    from simulations.reports.html_page import Piece, Section


def write_page(path: Path, explained: Sequence[Explanation], context: Mapping[str, object]) -> None:
    """Write the page.

    Args:
        path: Where to.
        explained: Creatives of one campaign, explained with their words.
        context: That of the request, as it was given.
    """
    from simulations.reports.html_page import write_html

    most = largest(list(explained))
    where = ", ".join(f"{name} = {value}" for name, value in context.items()) or "the average one"
    write_html(
        path,
        f"What the words of {explained[0].campaign} carry",
        [_section(each, most) for each in explained],
        lead="Blue words with a solid line raise the estimated click rate, orange words with a dashed line "
        "lower it; the number says by how much of the odds. Together they are the difference from the same "
        "text with every word unknown. All texts share one scale of colours.",
        settings={"campaign": explained[0].campaign, "context": where, "learning step": explained[0].version},
    )


def _section(explanation: Explanation, most: float) -> "Section":
    from simulations.reports.html_page import Section, Table

    rows = [(part.name, part.logit) for part in explanation.parts]
    wording = explanation.wording
    return Section(
        heading=f"{explanation.creative_id}: {percent(explanation.ctr, 2)}",
        caption=explanation.sentence,
        texts=() if wording is None else tuple((f, _pieces(f, wording, most)) for f in wording.texts),
        table=Table(
            header=("part", "logits", "odds"),
            rows=tuple((name, f"{logit:+.3f}", f"× {math.exp(logit):.3f}") for name, logit in rows),
        ),
    )


def _pieces(field: str, wording: Wording, most: float) -> tuple["Piece", ...]:
    from simulations.reports.html_page import Piece

    text, end, pieces = wording.texts[field], 0, []
    for word in wording.words:
        if word.field == field:
            strength = word.logit / most if most > 0 else 0.0
            note = shift(word) if abs(strength) >= LEAST else ""
            pieces += [Piece(text[end : word.start]), Piece(word.text, strength if note else 0.0, note)]
            end = word.end
    return (*pieces, Piece(text[end:]))
