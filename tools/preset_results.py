"""docs/results.md: all presets, played by the engine and by others, each with its default settings."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from simulations.experiments.plans import PRESETS, Plan, plan_of
from simulations.experiments.synthetic_run import run_synthetic
from simulations.policies.settings import ENGINE
from simulations.reports.scores import Comparison
from simulations.sweep import HERE, Workers

POLICIES = (
    *(ENGINE, "plain-thompson", "greedy", "engine-forgetting", "bayes-ucb"),
    *("lin-ucb", "lin-ts", "logistic-ts", "epsilon-greedy"),
    *("beta-thompson", "ucb1", "kl-ucb", "ab-then-commit"),
)
N_SEEDS = 8  # worlds of each preset
N_ENDS = 2  # rows of uniform and oracle, the last ones
INTRODUCTION = """# Results of the presets

Made by `make results`; nothing here was written by hand. What each preset is about stands in
[simulations.md](simulations.md). All policies have the settings that they are shipped with, the engine too;
those of others were chosen on other data, so `--tune` may do more for them. *Of uniform's* is the regret as a
share of what showing all creatives alike loses: 0 % is perfect. *More than the engine* is paired by seed,
each a world with traffic of its own; ± is one standard error over the {seeds} seeds. With fatigue regret is
against the myopic best of each policy's own moments, so clicks are the figure to compare there.
"""


def write_results(
    path: Path, seeds: int, out: Path, presets: Sequence[str] = tuple(PRESETS), workers: Workers = HERE
) -> None:
    """Play presets and write what came of it.

    Args:
        path: The document.
        seeds: Worlds of each preset.
        out: Folder of the presets' own results and reports; what is finished there is not played again.
        presets: Their names.
        workers: Where they are played.
    """
    console = Console(stderr=True)
    parts, verdicts = list[str](), list[str]()
    for name in presets:
        plan = replace(plan_of(name, POLICIES), seeds=seeds)
        rows = run_synthetic(plan, out / name, overwrite=True, workers=workers, console=console)
        console.print(f"{name}: done")
        parts.append(section(name, plan, rows))
        verdicts.append(f"| {name} | {verdict(rows)} |")
    summary = "\n".join(["| preset | the engine is |", "|---|---|", *verdicts])
    path.write_text("\n".join([INTRODUCTION.format(seeds=seeds), summary, *parts]) + "\n", encoding="utf-8")


def verdict(rows: Sequence[Comparison]) -> str:
    """Say whether the engine lost least, or how far it is behind who did.

    Args:
        rows: the engine's first; uniform's and oracle's last.
    """
    best = min(rows[1:-N_ENDS], key=lambda row: row.of_uniform)
    behind, error = -100 * best.more_than_engine, 100 * best.more_than_engine_error
    if behind <= 0:
        return f"first; next is {best.policy}, {-behind:.1f} ± {error:.1f} points behind"
    within = "within one standard error of the first" if behind <= error else "**not first**"
    return f"{within}: {best.policy} loses {behind:.1f} ± {error:.1f} points less"


def section(name: str, plan: Plan, rows: Sequence[Comparison]) -> str:
    """Return the part of the document on one preset."""
    changes = plan.changes.setting_id if plan.changes else ""
    lines = [
        f"\n## {name}\n",
        f"{PRESETS[name].teaches.capitalize()}. {plan.creatives} creatives, {plan.impressions:,} "
        f"impressions, batches of {plan.batch}; changes: {changes or 'none'}.\n",
        "| policy | setting | clicks | of uniform's | more than the engine |",
        "|---|---|---|---|---|",
    ]
    ends = rows[-N_ENDS:]
    for row in [*sorted(rows[:-N_ENDS], key=lambda row: row.of_uniform), *ends]:
        share = f"{100 * row.of_uniform:.1f} ± {100 * row.of_uniform_error:.1f} %"
        more = f"{100 * row.more_than_engine:+.1f} ± {100 * row.more_than_engine_error:.1f} points"
        more = "–" if row.policy == ENGINE or row in ends else more
        lines.append(f"| {row.policy} | {row.setting} | {row.clicks:,.1f} | {share} | {more} |")
    return "\n".join(lines)


def main() -> None:
    """Write the document that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m simulations.preset_results", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--out", type=Path, default=Path(".cache/results"))
    parser.add_argument("--workers", type=int, default=2, help="processes of this machine")
    given = parser.parse_args()
    workers = Workers(engine="local", n_workers=given.workers)
    write_results(given.path, given.seeds, given.out, given.presets.split(","), workers)


if __name__ == "__main__":
    main()
