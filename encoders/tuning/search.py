"""Which learning rate, rank and dropout do best: trials on campaigns that nothing is reported on.

References:
    Akiba, Sano, Yanase, Ohta, Koyama (2019), Optuna: A Next-generation Hyperparameter Optimization Framework.
    Bergstra, Bardenet, Bengio, Kégl (2011), Algorithms for Hyper-Parameter Optimization, section 4: the
    sampler, a tree of Parzen estimators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encoders.errors import TuningError

from .campaigns import PastCampaign, divide
from .export import check_free
from .fitting import Progress, Source, fit, load
from .report import Epoch, TuningReport
from .settings import TuningSettings
from .tune import AddFiles, task_of, tune

STUDY = "search.db"  # in the tuned encoder's folder; beside it until that is there
# Share of the campaigns that are not held out by which trials are judged. A tenth, which stops a training,
# would choose among many by uniform numbers.
_JUDGING = 0.3
_NAME = "tuning"
_FIRST_PRUNED = 5  # trials that are finished before one is given up for being below their median
# Around what is usual for BERTs; a setting outside widens its range.
_RATES = 1e-5, 1e-3
_RANKS = 2, 64
_MOST_DROPOUT = 0.3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: In the study, from 0, which is the setting that the search was given.
        settings: What was searched: learning_rate, dropout and, with "lora", rank.
        gain: Log-likelihood gained over equal scores on the judging campaigns, in nats per campaign, as
            `Epoch.stopping_gain`: of the best epoch, or of the last one before it was given up.
        is_pruned: Whether it was given up, being below the median of those before at the same epoch.
    """

    number: int
    settings: dict[str, float]
    gain: float
    is_pruned: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Attributes:
        settings: The best ones.
        best: The number of their trial.
        trials: All that were finished or given up.
        campaigns: How many campaigns trained and judged each trial.
    """

    settings: TuningSettings
    best: int
    trials: list[Trial]
    campaigns: dict[str, int]


class _GivenUp(Exception):
    """Ends the training of a trial."""


def search_and_tune(
    campaigns: Sequence[PastCampaign],
    out: Path,
    settings: TuningSettings,
    n_trials: int,
    model: str | Path | None = None,
    told: Callable[[Epoch], None] = lambda _: None,
    told_trial: Callable[[Trial], None] = lambda _: None,
    add_files: AddFiles = lambda *_: None,
) -> tuple[Search, TuningReport]:
    """Search for settings, then tune by the best ones as `tune` does.

    The held-out campaigns are looked at by the tuning at the end alone. Of the others the earlier ones train
    a trial and the later 30 % judge it; that is for the search only.

    The study is a file of Optuna's, on SQLite, beside the folder until that is there, then in it. If the
    process is killed, the same call goes on: a trial that was not finished is begun anew.

    Args:
        campaigns: In order of time, the latest last.
        out: Folder of the tuned encoder; must not be there.
        settings: The first trial, and all that is not searched.
        n_trials: How many are finished or given up before the best is taken.
        model: The encoder to tune: a folder or a hub id; None means the default one.
        told: Called with every epoch of the tuning at the end.
        told_trial: Called with every trial, those before a stop included.
        add_files: As for `tune`.

    Raises:
        TuningError: As from `tune`; Optuna is not installed, or the study is of another tuning.
        EncoderError: The encoder cannot be loaded.
    """
    found = _search(campaigns, out, settings, n_trials, model, told_trial)
    report = tune(campaigns, out, found.settings, model, told, add_files)
    study_of(out).replace(out / STUDY)
    return found, report


def study_of(out: Path) -> Path:
    """Return where the study of a folder to be is kept."""
    return out.with_name(f"{out.name}.{STUDY}")


def _search(
    campaigns: Sequence[PastCampaign],
    out: Path,
    settings: TuningSettings,
    n_trials: int,
    model: str | Path | None,
    told: Callable[[Trial], None],
) -> Search:
    optuna = _optuna()
    if n_trials < 1:
        raise TuningError(f"trials {n_trials}: expected 1 or more")
    check_free(out)
    parts = divide(campaigns, settings.held_out, _JUDGING)
    source = load(model)
    study = _study(study_of(out), task_of(campaigns, settings, source))
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)  # it was killed

    def done() -> list[Trial]:
        return [
            _trial(trial)
            for trial in study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        ]

    if not study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.WAITING)):
        study.enqueue_trial(_searched(source, settings))
    for trial in done():
        told(trial)
    ranges = _ranges(source, settings)
    while (n_done := len(done())) < n_trials:
        # By their number, so that a search that was stopped tries what it would have tried.
        study.sampler = optuna.samplers.TPESampler(seed=settings.seed + n_done)
        trial = study.ask(fixed_distributions=ranges)

        def note(progress: Progress, trial: Any = trial) -> None:
            epoch = progress.epochs[-1]
            if epoch.epoch == 0:
                return
            trial.report(epoch.stopping_gain, epoch.epoch)
            if epoch.epoch < settings.epochs and trial.should_prune():
                raise _GivenUp

        try:
            tried = replace(settings, **trial.params)
            fitted = fit(source, parts.training, parts.stopping, tried, note)
        except _GivenUp:
            study.tell(trial, state=states.PRUNED)
        else:
            study.tell(trial, fitted.kept.stopping_gain)
        told(done()[-1])
    best = study.best_trial
    return Search(
        settings=replace(settings, **best.params),
        best=best.number,
        trials=done(),
        campaigns={"training": len(parts.training), "judging": len(parts.stopping)},
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TuningError(
            "a search needs Optuna, which is not installed: pip install 'creative-bandit[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(place: Path, task: dict[str, str]) -> Any:
    optuna = _optuna()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{place}",
            study_name=_NAME,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST_PRUNED),
            load_if_exists=True,
        )
    except Exception as error:  # of Optuna, SQLAlchemy, alembic or the disk
        reason = str(error).partition("\n")[0]  # SQLAlchemy adds its statement
        raise TuningError(f"{place} is no study of Optuna ({reason}); remove it to start anew") from error
    known = study.user_attrs.get("task", {})
    if not known and not study.trials:
        study.set_user_attr("task", task)
    elif other := [name for name, value in task.items() if known.get(name) != value]:
        raise TuningError(
            f"{place} is a search with {' and '.join(other)} that differ; repeat its command, name another "
            "folder, or remove it to start anew"
        )
    return study


def _ranges(source: Source, settings: TuningSettings) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution, IntDistribution

    first = _searched(source, settings)
    ranges: dict[str, Any] = {
        "learning_rate": FloatDistribution(
            min(_RATES[0], settings.learning_rate), max(_RATES[1], settings.learning_rate), log=True
        ),
        "dropout": FloatDistribution(0.0, max(_MOST_DROPOUT, first["dropout"])),
    }
    if settings.method == "lora":
        most = min(_RANKS[1], source.config.hidden_size - 1)
        ranges["rank"] = IntDistribution(min(_RANKS[0], settings.rank), max(most, settings.rank), log=True)
    return ranges


def _searched(source: Source, settings: TuningSettings) -> dict[str, float]:
    """Return what is searched as it was given."""
    dropout = source.config.hidden_dropout_prob if settings.dropout is None else settings.dropout
    rank = {"rank": settings.rank} if settings.method == "lora" else {}
    return {"learning_rate": settings.learning_rate, "dropout": dropout, **rank}


def _trial(trial: Any) -> Trial:
    is_pruned = trial.state.name == "PRUNED"
    gain = trial.intermediate_values[trial.last_step] if is_pruned else trial.value
    return Trial(number=trial.number, settings=dict(trial.params), gain=float(gain), is_pruned=is_pruned)
