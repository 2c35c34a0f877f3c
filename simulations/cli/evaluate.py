"""`evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit.cli.opening import opened_store
from bandit.cli.options import AsJson, example, group, parse_integer, parse_number
from bandit.cli.printing import counted, percent, print_fields, print_json, print_line, print_table

if TYPE_CHECKING:
    import numpy as np

    from bandit.decision_log.logs import Log
    from simulations.ope.evaluation import Estimate, Evaluation

app = group()
KNOWN = ("uniform", "greedy", "engine")


@app.command(
    epilog=example(
        "evaluate ads.db --campaign spring-sale --policy greedy",
        "evaluate ads.db --campaign spring-sale --policy uniform --json",
        "evaluate random.csv.gz --policy bts.csv.gz --estimators snips,dr,switch-dr",
        "evaluate decisions.dsjson --policy mine.csv",
        "evaluate ads.db --campaign spring-sale --policy engine --kappa 1 --uniform-share 0.05",
    )
)
def evaluate(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG",
            help="A database; a .csv of storage export, or with Open Bandit's columns; a .dsjson of Vowpal "
            "Wabbit. Files may be gzipped (.gz).",
        ),
    ],
    *,
    policy: Annotated[
        str,
        typer.Option(
            metavar="POLICY",
            help="uniform; greedy and engine (learn from the first half of the log, judged on the second); a "
            ".csv of the policy's own probabilities (creative, probability, and decision_id where they "
            "differ); or another log: the policy that made it.",
        ),
    ],
    campaign: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Needed with a database, and with a file of several campaigns."),
    ] = None,
    estimators: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Which estimators; all when not given.")
    ] = None,
    kappa: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="With engine: the share of an even split that it expects; 0 is greedy."
        ),
    ] = None,
    optimism: Annotated[
        str | None, typer.Option(metavar="N", help="With engine: lookahead sd above the mean.")
    ] = None,
    noise: Annotated[
        str | None, typer.Option(metavar="N", help="With engine: part of the lookahead drawn at random.")
    ] = None,
    uniform_share: Annotated[
        str | None, typer.Option(metavar="SHARE", help="With engine: traffic that all share alike.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With engine: another encoder, a folder or a hub id."),
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Seed of the bootstrap and the replay.")] = "0",
    as_json: AsJson = False,
) -> None:
    """Estimate what another policy would have earned, from decisions that were logged with propensities."""
    number = parse_integer(seed, "--seed")
    given = {"kappa": kappa, "optimism": optimism, "noise": noise, "uniform_share": uniform_share}
    settings = {
        name: parse_number(text, f"--{name.replace('_', '-')}") for name, text in given.items() if text
    }
    from bandit.decision_log.reading import FILES
    from simulations.ope.evaluation import evaluate as evaluate_policy

    if policy not in KNOWN and not policy.endswith(FILES):
        raise typer.BadParameter(
            f"expected {', '.join(KNOWN)} or a file that ends in {', '.join(FILES)}, got {policy!r}",
            param_hint="--policy",
        )
    if policy == "engine":
        if log.endswith(FILES):
            raise typer.BadParameter(
                f"engine needs a database, which has contents and contexts, got {log!r}",
                param_hint="--policy",
            )
        rows, target = _engine(_database(log, campaign), settings, encoder)
    elif settings or encoder:
        named = ", ".join([*settings, *["encoder"] * bool(encoder)])
        raise typer.BadParameter(
            f"expected engine, which alone has {named}, got {policy!r}", param_hint="--policy"
        )
    else:
        rows, target = _target(policy, _read(log, campaign))
    names = None if estimators is None else estimators.split(",")
    found = evaluate_policy(rows, target, estimators=names, seed=number)
    if as_json:
        asked = settings | ({} if encoder is None else {"encoder": encoder})
        print_json({"log": log, "campaign": campaign, "policy": policy, "settings": asked, **asdict(found)})
        return
    _print(found, Path(policy).name)


def _database(log: str, campaign: str | None) -> tuple[str, str]:
    """Return a database and its campaign."""
    if log.endswith((".parquet", ".pq")):
        raise typer.BadParameter(
            f"parquet is not read, got {log!r}; give the .csv or .dsjson of creative-bandit storage export",
            param_hint="LOG",
        )
    if campaign is None:
        raise typer.BadParameter(f"is needed with a database, got {log!r}", param_hint="--campaign")
    return log, campaign


def _read(log: str, campaign: str | None) -> "Log":
    from bandit.decision_log.own_logs import read_database
    from bandit.decision_log.reading import FILES, read_log

    if log.endswith(FILES):
        return read_log(Path(log), campaign)
    url, name = _database(log, campaign)
    with opened_store(url) as store:
        return read_database(store, name)


def _target(policy: str, rows: "Log") -> tuple["Log", "np.ndarray"]:
    """Return what is evaluated, and a policy's probabilities there."""
    from simulations.ope import targets

    if policy == "uniform":
        return rows, targets.uniform(rows)
    if policy == "greedy":
        half = len(rows.action) // 2
        past, rest = rows.part(slice(None, half)), rows.part(slice(half, None))
        return rest, targets.greedy(past, rest)
    return rows, targets.of_file(Path(policy), rows)


def _engine(
    database: tuple[str, str], settings: dict[str, float], encoder: str | None
) -> tuple["Log", "np.ndarray"]:
    """Return the second half of a database's log, and what the engine would show there."""
    from bandit.decision_log.own_logs import log_of_decisions, read_settled
    from bandit.engine import utc_now
    from bandit.model.model import Model
    from encoders import TextEncoder
    from simulations.ope.counterfactual import EngineSettings, engine_probabilities

    explores = EngineSettings(**settings)
    other = None if encoder is None else TextEncoder(encoder)
    url, campaign = database
    with opened_store(url) as store:
        decisions = read_settled(store, campaign)
        model = Model(store, utc_now, 0, None)
        half = len(decisions) // 2
        target = engine_probabilities(model, decisions, half, explores, other)
        return log_of_decisions(decisions, model).part(slice(half, None)), target


def _print(found: "Evaluation", policy: str) -> None:
    print_table(
        ("estimator", "CTR", "95 % interval", "Bernstein"),
        [_row(one) for one in found.estimates],
    )
    print_line("")
    print_fields(
        {
            "logged policy": f"{percent(found.on_policy, 2)} ± {percent(found.on_policy_error, 2)} "
            f"on {counted(found.rows, 'decision')}",
            "effective decisions": f"{found.effective_rows:,.0f}",
            "largest weight": f"{found.largest_weight:,.1f}",
            "mean weight": f"{found.mean_weight:.3f}",
            "without support": percent(found.unsupported, 2),
            "too rare in the log": percent(found.rare, 2),
        }
    )
    print_line("")
    for sentence in (*_conclusion(found, policy), *found.notes):
        print_line(sentence)


def _row(one: "Estimate") -> tuple[str, ...]:
    return (
        one.estimator,
        "none" if one.value is None else percent(one.value, 2),
        _between(one.low, one.high),
        _between(one.bernstein_low, one.bernstein_high),
    )


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{percent(low, 2)} – {percent(high, 2)}"


def _conclusion(found: "Evaluation", policy: str) -> list[str]:
    """Return what to make of it, by the first of the estimators that are neither wild nor only a model."""
    if found.doubts:
        return ["Do not trust these estimates:", *(f"- {doubt}" for doubt in found.doubts)]
    usable = {one.estimator: one for one in found.estimates}
    one = next((usable[name] for name in ("dr", "switch-dr", "snips") if name in usable), found.estimates[0])
    if one.low is None or one.high is None:
        return [f"By {one.estimator}, nothing can be said: no decision counts."]
    if one.low > found.on_policy:
        verdict = "better than"
    elif one.high < found.on_policy:
        verdict = "worse than"
    else:
        verdict = "not to be told from"
    return [
        f"By {one.estimator}, {policy} would earn {percent(one.value, 2)} "
        f"({_between(one.low, one.high)}): {verdict} the logged policy's {percent(found.on_policy, 2)}."
    ]
