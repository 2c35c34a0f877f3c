"""What all runs of experiments have in common: who plays, and what is left in the folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from bandit.html_page import Section
from simulations.errors import unknown
from simulations.grid_search import Trial
from simulations.policies.settings import ENGINE
from simulations.reports.files import write_csv, write_report

RESULTS, TUNING, REPORT = "results.csv", "tuning.csv", "report.html"


class Row(Protocol):
    """A row of results: it names a policy and its setting."""

    @property
    def policy(self) -> str: ...  # noqa: D102  # described above
    @property
    def setting(self) -> str: ...  # noqa: D102  # described above


def line_up(policies: Sequence[str], known: Sequence[str], error: type[Exception]) -> list[str]:
    """Return who plays: the engine first, then the others as they were named, each once.

    Raises:
        Exception: of the kind given; names all that nobody knows.
    """
    if strange := [unknown("policy", name, known) for name in policies if name not in known]:
        raise error("; ".join(strange))
    return list(dict.fromkeys((ENGINE, *policies)))


def write_results(
    out: Path, rows: Sequence[Row], trials: Sequence[Trial] = (), *, names: Mapping[str, str] | None = None
) -> None:
    """Write results.csv, and tuning.csv if settings were chosen.

    Args:
        out: the folder.
        rows: results, of one type.
        trials: what settings were chosen from.
        names: field -> name of its column, where they differ.
    """
    if trials:
        write_csv(trials, out / TUNING)
    write_csv(rows, out / RESULTS, names=names)


def write_page(
    out: Path,
    title: str,
    sections: Sequence[Section],
    rows: Sequence[Row],
    *,
    lead: str,
    settings: Mapping[str, Any],
) -> None:
    """Write report.html and its pictures; its settings end with who played, and the version of JAX.

    Args:
        out: the folder.
        title: heading of the page.
        sections: its parts.
        rows: of those who played.
        lead: what came out.
        settings: what else is needed to make it again.
    """
    played = {"policies": "; ".join(f"{row.policy}: {row.setting}" for row in rows), "jax": jax.__version__}
    write_report(out / REPORT, title, sections, lead=lead, settings={**settings, **played})
