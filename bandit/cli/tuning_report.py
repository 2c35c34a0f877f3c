"""What `tune` prints."""

from typing import TYPE_CHECKING

from bandit.cli.printing import print_line, print_table

if TYPE_CHECKING:
    from encoders.tuning import Search, TuningReport

NO_COMPONENTS = "without components: a database fits them once it has 256 different texts"


def print_search(search: "Search") -> None:
    """Print the trials, and which one was taken."""
    counts, names = search.campaigns, list(search.trials[0].settings)
    print_line(
        f"{len(search.trials)} trials, each trained on {counts['training']:,} campaigns and judged by "
        f"{counts['judging']:,} later ones, none of them held out"
    )
    print_table(
        ("trial", *(name.replace("_", " ") for name in names), "gain on the judging part", ""),
        [
            (
                str(trial.number),
                *(f"{trial.settings[name]:.3g}" for name in names),
                f"{trial.gain:.3f}",
                "taken" if trial.number == search.best else "given up" if trial.is_pruned else "",
            )
            for trial in search.trials
        ],
    )
    print_line("")


def print_report(report: "TuningReport", *, has_components: bool) -> None:
    """Print what a tuning did, and what it brought."""
    if report.went_on_after is not None:
        print_line(f"went on after epoch {report.went_on_after} of a run that was stopped")
    counts = report.campaigns
    print_line(
        f"{counts['training']:,} campaigns trained, {counts['stopping']:,} stopped the training, "
        f"{counts['held_out']:,} later ones are reported on"
    )
    print_table(
        ("epoch", "training loss", "gain on the stopping part", ""),
        [
            (
                "before" if epoch.epoch == 0 else str(epoch.epoch),
                "" if epoch.loss is None else f"{epoch.loss:.4f}",
                f"{epoch.stopping_gain:.3f}",
                "kept" if epoch.epoch == report.kept else "",
            )
            for epoch in report.epochs
        ],
    )
    print_line("")
    print_table(
        ("on the held-out campaigns", "cases", "before", "after", "gain", "verdict"),
        [
            (
                measure.name,
                f"{measure.cases:,}",
                f"{measure.before:.3f} ± {measure.before_error:.3f}",
                f"{measure.after:.3f} ± {measure.after_error:.3f}",
                f"{measure.gain:+.3f} ± {measure.gain_error:.3f}",
                measure.verdict,
            )
            for measure in report.measures
        ],
    )
    print_line("")
    print_line(
        f"the tuned encoder is in {report.folder}, "
        + ("with the components of its texts" if has_components else NO_COMPONENTS)
    )
