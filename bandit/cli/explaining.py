"""`explain`: where an estimate comes from, and which words carry it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bandit.cli.opening import opened_engine
from bandit.cli.options import DEFAULT_DATABASE, AsJson, Database, example, group, parse_context
from bandit.cli.printing import console, percent, print_json, print_line, print_table, progress_bar
from bandit.html_page import Piece, Section, Table, write_html
from bandit.types import Explanation, Word, Wording

if TYPE_CHECKING:
    from bandit.engine import Engine

app = group()

LEAST = 0.1  # of the largest shift of a word: smaller ones are printed without their number
RAISES, LOWERS = "blue", "dark_orange3"  # told apart whatever colours one sees; the sign says it too


@app.command(
    epilog=example(
        "explain spring-sale calm --context device=mobile",
        "explain spring-sale calm --words",
        "explain spring-sale --html words.html",
        "explain --decision 019a1c2e-7d10-7abc-8def-0123456789ab --json",
    )
)
def explain(
    campaign: Annotated[
        str | None,
        typer.Argument(metavar="CAMPAIGN", help="The campaign, unless --decision is given."),
    ] = None,
    creative: Annotated[
        str | None,
        typer.Argument(metavar="CREATIVE", help="One of its creatives; without it, --html shows all active."),
    ] = None,
    *,
    decision: Annotated[
        str | None,
        typer.Option(metavar="DECISION", help="A decision's id: explains the creative that it chose."),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", "-c", metavar="NAME=VALUE", help="A request's context; repeatable."),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words", help="Also say what each word of the text carries; takes seconds.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A page for it, the words in colours.")
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Show where a creative's estimated click rate comes from, or why a decision chose it."""
    known = parse_context(context or [])
    if decision is None and (campaign is None or (creative is None and html is None)):
        raise typer.BadParameter(
            "give a campaign and one of its creatives, or --decision", param_hint="CREATIVE"
        )
    if decision is not None and (campaign is not None or known):
        raise typer.BadParameter("it has a campaign and a context of its own", param_hint="--decision")
    if html is not None and as_json:
        raise typer.BadParameter("give either --html or --json", param_hint="--html")
    words = words or html is not None
    with opened_engine(database) as engine:
        if decision is not None:
            explained = [engine.explain(decision_id=decision, words=words)]
        elif creative is not None:
            explained = [engine.explain(str(campaign), creative, known, words=words)]
        else:
            explained = []
            names = _active(engine, str(campaign))
            with progress_bar("creatives", len(names)) as advance:
                for name in names:
                    explained.append(engine.explain(str(campaign), name, known, words=words))
                    advance(1)
    if html is not None:
        write_page(html, explained, known)
        print_line(f"the page is in {html}")
        return
    explanation = explained[0]
    if as_json:
        print_json(asdict(explanation))
        return
    print_table(
        ("part", "logits", "± sd", "odds"),
        [
            (part.name, f"{part.logit:+.3f}", f"{part.sd:.3f}", f"× {math.exp(part.logit):.3f}")
            for part in explanation.parts
        ]
        + [
            (
                "sum",
                f"{explanation.logit:+.3f}",
                f"{explanation.sd:.3f}",
                f"× {math.exp(explanation.logit):.3f}",
            )
        ],
    )
    print_line(explanation.sentence)
    if explanation.wording is not None:
        _print_words(explanation.wording)


def shift(word: Word) -> str:
    """Write by how much a word raises or lowers the odds of a click.

    Example:
        >>> shift(Word(field="headline", start=0, end=4, text="Free", logit=0.021))
        '+2.1 %'
    """
    return f"{100 * math.expm1(word.logit):+.1f} %".replace("-", "−")


def largest(explained: list[Explanation]) -> float:
    """Return the largest logit of a word, without its sign; 0 where no word carries anything."""
    return max(
        (abs(word.logit) for each in explained if each.wording for word in each.wording.words), default=0.0
    )


def _active(engine: "Engine", campaign: str) -> list[str]:
    """Return a campaign's active creatives, the best first.

    Raises:
        UnknownCampaignError: There is no such campaign.
        UnknownCreativeError: It has none.
    """
    from storage import UnknownCreativeError

    arms = [arm for arm in engine.arms(campaign) if arm.status == "active"]
    if not arms:
        raise UnknownCreativeError(f"campaign {campaign!r} has no active creative to explain")
    return [arm.creative_id for arm in sorted(arms, key=lambda arm: -arm.ctr)]


def _print_words(wording: Wording) -> None:
    most = max((abs(word.logit) for word in wording.words), default=0.0)
    print_line("")
    for field, text in wording.texts.items():
        line = Text.assemble((f"{field}: ", "dim"), marked(text, field, wording, most))
        console().print(line, soft_wrap=True)
    carried = sum(word.logit for word in wording.words)
    print_table(
        ("what its text says", "logits", "odds"),
        [
            (name, f"{logit:+.3f}", f"× {math.exp(logit):.3f}")
            for name, logit in (
                ("every word masked", wording.masked),
                ("its words", carried),
                ("content + interaction", wording.logit),
            )
        ],
    )
    for field in wording.cut:
        print_line(f"{field} is longer than the encoder reads: words after its limit carry nothing")


def marked(text: str, field: str, wording: Wording, most: float) -> Text:
    """Mark a field's words: with their shift in brackets, in a colour, and in bold where they carry much.

    Args:
        text: The field's text.
        field: The field.
        wording: What the words carry.
        most: The largest logit of a word, without its sign.
    """
    line, end = Text(), 0
    for word in wording.words:
        if word.field != field:
            continue
        line.append(text[end : word.start])
        if most > 0 and abs(word.logit) >= LEAST * most:
            colour = RAISES if word.logit > 0 else LOWERS
            style = f"bold {colour}" if abs(word.logit) >= most / 2 else colour
            line.append(f"{word.text} [{shift(word)}]", style=style)
        else:
            line.append(word.text)
        end = word.end
    return line.append(text[end:])


def write_page(path: Path, explained: Sequence[Explanation], context: Mapping[str, object]) -> None:
    """Write the page.

    Args:
        path: Where to.
        explained: Creatives of one campaign, explained with their words.
        context: That of the request, as it was given.
    """
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


def _section(explanation: Explanation, most: float) -> Section:
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


def _pieces(field: str, wording: Wording, most: float) -> tuple[Piece, ...]:
    text, end, pieces = wording.texts[field], 0, []
    for word in wording.words:
        if word.field == field:
            strength = word.logit / most if most > 0 else 0.0
            note = shift(word) if abs(strength) >= LEAST else ""
            pieces += [Piece(text[end : word.start]), Piece(word.text, strength if note else 0.0, note)]
            end = word.end
    return (*pieces, Piece(text[end:]))
