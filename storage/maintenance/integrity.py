"""`storage check`: what is stored twice must agree, and no row may lack its partner."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load
from sqlalchemy import Connection, func, select, text

from storage.database.dialect import database_clock
from storage.records import Finding
from storage.schema.tables import Campaign, Decision, Lease, Posterior

LONGEST_WAIT: Final = timedelta(hours=1)


class Rule(NamedTuple):
    """A query whose rows (subject, message) are each a finding."""

    name: str
    query: str


# What was pruned of each model, none of it learnt after the newest refit.
PRUNED: Final = """
    SELECT campaigns.model_id AS model_id, CAST(sum(pruned_counts.impressions) AS bigint) AS impressions,
        (
            SELECT max(step) FROM learn_log
            WHERE learn_log.model_id = campaigns.model_id AND learn_log.kind = 'refit'
        ) AS refit
    FROM pruned_counts
    JOIN creatives ON creatives.creative_id = pruned_counts.creative_id
    JOIN campaigns ON campaigns.campaign_id = creatives.campaign_id
    GROUP BY campaigns.model_id
"""
RULES: Final = (
    Rule(
        "arm statistics",
        """
        SELECT 'creative ' || s.creative_id, 'statistics say ' || s.clicks || ' clicks of ' || s.impressions
            || ' impressions, its learnt decisions ' || (coalesce(d.clicks, 0) + coalesce(p.clicks, 0))
            || ' of ' || (coalesce(d.impressions, 0) + coalesce(p.impressions, 0))
        FROM arm_statistics AS s
        LEFT JOIN (
            SELECT creative_id, count(*) AS impressions, CAST(sum(click) AS bigint) AS clicks
            FROM decisions WHERE learnt_batch IS NOT NULL GROUP BY creative_id
        ) AS d ON d.creative_id = s.creative_id
        LEFT JOIN (
            SELECT creative_id, CAST(sum(impressions) AS bigint) AS impressions,
                CAST(sum(clicks) AS bigint) AS clicks
            FROM pruned_counts GROUP BY creative_id
        ) AS p ON p.creative_id = s.creative_id
        WHERE s.impressions <> coalesce(d.impressions, 0) + coalesce(p.impressions, 0)
            OR s.clicks <> coalesce(d.clicks, 0) + coalesce(p.clicks, 0)
        ORDER BY s.creative_id
        """,
    ),
    Rule(
        "conversions",
        """
        SELECT 'creative ' || s.creative_id, 'statistics say ' || s.conversions || ' conversions worth '
            || s.value || ', its outcomes ' || (coalesce(o.conversions, 0) + coalesce(p.conversions, 0))
            || ' worth ' || (coalesce(o.value, 0) + coalesce(p.value, 0))
        FROM arm_statistics AS s
        LEFT JOIN (
            SELECT decisions.creative_id AS creative_id, count(*) AS conversions, sum(outcomes.value) AS value
            FROM outcomes JOIN decisions ON decisions.decision_id = outcomes.decision_id
            WHERE outcomes.kind = 'conversion' AND outcomes.valid AND NOT outcomes.late
            GROUP BY decisions.creative_id
        ) AS o ON o.creative_id = s.creative_id
        LEFT JOIN (
            SELECT creative_id, CAST(sum(conversions) AS bigint) AS conversions, sum(value) AS value
            FROM pruned_counts GROUP BY creative_id
        ) AS p ON p.creative_id = s.creative_id
        WHERE s.conversions <> coalesce(o.conversions, 0) + coalesce(p.conversions, 0)
            OR abs(s.value - coalesce(o.value, 0) - coalesce(p.value, 0)) > 1e-6 * (1 + abs(s.value))
        ORDER BY s.creative_id
        """,
    ),
    Rule(
        "imported history",
        """
        SELECT 'import ' || i.import_id, 'is noted with ' || i.clicks || ' clicks of ' || i.impressions
            || ' impressions, its counts sum to ' || coalesce(h.clicks, 0) || ' of '
            || coalesce(h.impressions, 0)
        FROM history_imports AS i
        LEFT JOIN (
            SELECT campaigns.model_id AS model_id, history_counts.import_id AS import_id,
                CAST(sum(history_counts.impressions) AS bigint) AS impressions,
                CAST(sum(history_counts.clicks) AS bigint) AS clicks
            FROM history_counts
            JOIN creatives ON creatives.creative_id = history_counts.creative_id
            JOIN campaigns ON campaigns.campaign_id = creatives.campaign_id
            GROUP BY campaigns.model_id, history_counts.import_id
        ) AS h ON h.model_id = i.model_id AND h.import_id = i.import_id
        WHERE i.impressions <> coalesce(h.impressions, 0) OR i.clicks <> coalesce(h.clicks, 0)
        ORDER BY i.model_id, i.import_id
        """,
    ),
    Rule(
        "creatives without statistics",
        """
        SELECT 'creative ' || creatives.creative_id, 'has no row in arm_statistics'
        FROM creatives LEFT JOIN arm_statistics ON arm_statistics.creative_id = creatives.creative_id
        WHERE arm_statistics.creative_id IS NULL ORDER BY creatives.creative_id
        """,
    ),
    Rule(
        "learnt decisions",
        """
        SELECT 'model ' || b.model_id || ', step ' || b.step,
            'decisions say it learnt ' || b.decisions || ' of them, the log ' || coalesce(l.n_rows, 0)
        FROM (
            SELECT campaigns.model_id AS model_id, decisions.learnt_batch AS step, count(*) AS decisions
            FROM decisions JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
            WHERE decisions.learnt_batch IS NOT NULL
            GROUP BY campaigns.model_id, decisions.learnt_batch
        ) AS b
        LEFT JOIN learn_log AS l ON l.model_id = b.model_id AND l.step = b.step
        LEFT JOIN ($pruned) AS p ON p.model_id = b.model_id
        WHERE l.n_rows IS NULL OR l.n_rows < b.decisions
            OR (l.n_rows > b.decisions AND b.step > coalesce(p.refit, 0))
        ORDER BY b.model_id, b.step
        """,
    ),
    Rule(
        "steps without their decisions",
        """
        SELECT 'model ' || l.model_id || ', step ' || l.step,
            'the log says it learnt ' || l.n_rows || ' decisions, none names it'
        FROM learn_log AS l
        LEFT JOIN ($pruned) AS p ON p.model_id = l.model_id
        WHERE l.n_rows > 0 AND l.step > coalesce(p.refit, 0) AND NOT EXISTS (
            SELECT 1 FROM decisions JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
            WHERE decisions.learnt_batch = l.step AND campaigns.model_id = l.model_id
        )
        ORDER BY l.model_id, l.step
        """,
    ),
    Rule(
        "learnt decisions in all",
        """
        SELECT 'model ' || l.model_id, 'the log learnt ' || l.n_rows || ' decisions, there are '
            || coalesce(d.decisions, 0) || ', and ' || coalesce(p.impressions, 0) || ' were pruned'
        FROM (SELECT model_id, CAST(sum(n_rows) AS bigint) AS n_rows FROM learn_log GROUP BY model_id) AS l
        LEFT JOIN (
            SELECT campaigns.model_id AS model_id, count(*) AS decisions
            FROM decisions JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
            WHERE decisions.learnt_batch IS NOT NULL GROUP BY campaigns.model_id
        ) AS d ON d.model_id = l.model_id
        LEFT JOIN ($pruned) AS p ON p.model_id = l.model_id
        WHERE l.n_rows <> coalesce(d.decisions, 0) + coalesce(p.impressions, 0)
        ORDER BY l.model_id
        """,
    ),
    Rule(
        "gaps in the log",
        """
        SELECT 'model ' || model_id,
            'its log has ' || count(*) || ' steps from ' || min(step) || ' to ' || max(step)
        FROM learn_log GROUP BY model_id HAVING count(*) <> max(step) OR min(step) <> 1 ORDER BY model_id
        """,
    ),
    Rule(
        "settled clicks",
        """
        SELECT 'decision ' || d.decision_id, 'settled as ' || d.click || ', its reports in time say '
            || coalesce(CAST(max(o.value) AS integer), 0)
        FROM decisions AS d
        LEFT JOIN outcomes AS o ON o.decision_id = d.decision_id
            AND o.kind = 'click' AND o.valid AND NOT o.late AND o.corrects IS NULL
        WHERE d.settled_at IS NOT NULL
        GROUP BY d.decision_id, d.click HAVING d.click <> coalesce(max(o.value), 0)
        ORDER BY d.decision_id
        """,
    ),
    Rule(
        "corrections",
        """
        SELECT 'outcome ' || new.outcome_id, 'takes back outcome ' || new.corrects || ', which is '
            || CASE WHEN old.valid THEN 'still valid' ELSE 'of another decision or kind' END
        FROM outcomes AS new JOIN outcomes AS old ON old.outcome_id = new.corrects
        WHERE old.valid OR new.valid OR new.decision_id <> old.decision_id OR new.kind <> old.kind
        UNION ALL
        SELECT 'outcome ' || old.outcome_id, 'is not valid, and no correction says so'
        FROM outcomes AS old LEFT JOIN outcomes AS new ON new.corrects = old.outcome_id
        WHERE NOT old.valid AND old.corrects IS NULL AND new.outcome_id IS NULL
        UNION ALL
        SELECT 'decision ' || d.decision_id, 'its click counts as taken back, and no correction says so'
        FROM decisions AS d
        WHERE d.corrected_at IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM outcomes AS o
            WHERE o.decision_id = d.decision_id AND o.kind = 'click' AND o.corrects IS NOT NULL
        )
        """,
    ),
    Rule(
        "creatives of other campaigns",
        """
        SELECT 'decision ' || decisions.decision_id, 'its creative ' || creatives.creative_id
            || ' belongs to campaign ' || creatives.campaign_id || ', not ' || decisions.campaign_id
        FROM decisions JOIN creatives ON creatives.creative_id = decisions.creative_id
        WHERE creatives.campaign_id <> decisions.campaign_id ORDER BY decisions.decision_id
        """,
    ),
    Rule(
        "states beyond the log",
        """
        SELECT a.name || ', model ' || a.model_id, 'is as of step ' || max(a.step) || ', the log ends at '
            || coalesce(max(l.step), 0)
        FROM (
            SELECT 'snapshot' AS name, model_id, max(step) AS step FROM posteriors GROUP BY model_id
            UNION ALL SELECT 'arm state', model_id, max(step) FROM arm_states GROUP BY model_id
        ) AS a
        LEFT JOIN (SELECT model_id, max(step) AS step FROM learn_log GROUP BY model_id) AS l
            ON l.model_id = a.model_id
        GROUP BY a.name, a.model_id HAVING max(a.step) > coalesce(max(l.step), 0)
        ORDER BY a.name, a.model_id
        """,
    ),
)


def check(connection: Connection, now: datetime | None = None) -> list[Finding]:
    """Run all checks in one view of the data.

    Args:
        connection: Inside a transaction.
        now: The time, to find what has waited for an hour to be learnt; None does not look for it.

    Returns:
        What is wrong, check by check; empty when all is well.
    """
    findings = _check_references(connection)
    for rule in RULES:
        for subject, message in connection.execute(text(rule.query.replace("$pruned", PRUNED))):
            findings.append(Finding(check=rule.name, subject=subject, message=message))
    if now is not None:
        findings += _check_waiting(connection, now)
    return findings + _check_snapshots(connection)


def _check_waiting(connection: Connection, now: datetime) -> list[Finding]:
    """Find settled decisions that nobody has learnt for an hour."""
    query = (
        select(Campaign.model_id, func.count(), func.min(Decision.settled_at))
        .join(Campaign, Campaign.campaign_id == Decision.campaign_id)
        .where(
            Decision.settled_at.is_not(None),
            Decision.learnt_batch.is_(None),
            Decision.settled_at < now - LONGEST_WAIT,
        )
        .group_by(Campaign.model_id)
    )
    held = select(Lease.owner).where(Lease.expires_at > database_clock())
    findings = []
    for model_id, count, since in connection.execute(query).all():
        oldest = "" if since is None else since.isoformat()
        owner = connection.execute(held.where(Lease.model_id == model_id)).scalar_one_or_none()
        who = "no process learns it" if owner is None else f"{owner} holds the lease and does not learn them"
        message = f"{count} settled decisions are not learnt, the oldest since {oldest}; {who}"
        findings.append(Finding(check="unlearnt decisions", subject=f"model {model_id}", message=message))
    return findings


def _check_references(connection: Connection) -> list[Finding]:
    """Look for orphans on SQLite, where another program can leave foreign keys unchecked."""
    if connection.dialect.name != "sqlite":
        return []
    return [
        Finding(
            check="references",
            subject=f"{table}, rowid {rowid}",
            message=f"refers to a row of {parent} that does not exist",
        )
        for table, rowid, parent, _ in connection.execute(text("PRAGMA foreign_key_check"))
    ]


def _check_snapshots(connection: Connection) -> list[Finding]:
    findings = []
    query = select(Posterior.model_id, Posterior.step, Posterior.snapshot)
    for row in connection.execute(query.order_by(Posterior.model_id, Posterior.step)):
        try:
            load(row.snapshot)
        except (SafetensorError, ValueError, KeyError) as error:
            findings.append(
                Finding(
                    check="snapshots",
                    subject=f"model {row.model_id}, step {row.step}",
                    message=f"cannot be read: {error}",
                )
            )
    return findings
