r"""The views that people read: the same names, columns and numbers on both databases.

They hold no data, so an upgrade drops and creates them all. On SQLite the comment stands in the view's text
(`.schema arm_report`), on PostgreSQL it is the view's comment (`\dv+`).
"""

from string import Template
from typing import NamedTuple

from sqlalchemy import Connection, text


class View(NamedTuple):
    """A view: its name, the question that it answers, and its SELECT with $-fragments per database."""

    name: str
    answers: str
    select: str


# What the two databases spell differently.
FRAGMENTS = {
    "sqlite": {
        "text": "json_extract(creatives.content, '$.{}')",
        "day": "date(decisions.activated_at)",
        "percent": "round(100.0 * ({}), 3)",
        "rounded": "round({}, 4)",
        "seconds": "round((julianday({}) - julianday({})) * 86400.0, 3)",
        "now": "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'",
    },
    "postgresql": {
        "text": "creatives.content::json ->> '{}'",
        "day": "(decisions.activated_at AT TIME ZONE 'UTC')::date",
        "percent": "round((100.0 * ({}))::numeric, 3)",
        "rounded": "round(({})::numeric, 4)",
        "seconds": "round(extract(epoch FROM {} - {})::numeric, 3)",
        "now": "clock_timestamp()",
    },
}

ARM_REPORT = View(
    "arm_report",
    "How does each creative do, and how sure are we? Counts are learnt decisions; rates are in percent. "
    "value_remaining is what a change of creatives may still be worth, in percent of its own rate.",
    """
SELECT
    campaigns.name AS campaign,
    creatives.external_id AS creative,
    creatives.status AS status,
    $headline AS headline,
    arm_statistics.impressions AS impressions,
    arm_statistics.clicks AS clicks,
    $ctr AS ctr_pct,
    $ctr_low AS ctr_low_pct,
    $ctr_high AS ctr_high_pct,
    $p_best AS p_best_pct,
    $share AS share_pct,
    $expected_loss AS expected_loss_pct,
    $value_remaining AS value_remaining_pct,
    arm_statistics.conversions AS conversions,
    arm_statistics.value AS value,
    arm_statistics.pending_impressions AS pending,
    coalesce(history.impressions, 0) AS history_impressions,
    coalesce(history.clicks, 0) AS history_clicks,
    arm_statistics.version AS version,
    arm_statistics.refreshed_at AS refreshed_at
FROM creatives
JOIN campaigns ON campaigns.campaign_id = creatives.campaign_id
JOIN arm_statistics ON arm_statistics.creative_id = creatives.creative_id
LEFT JOIN (
    SELECT
        creative_id,
        CAST(sum(impressions) AS bigint) AS impressions,
        CAST(sum(clicks) AS bigint) AS clicks
    FROM history_counts
    GROUP BY creative_id
) AS history ON history.creative_id = creatives.creative_id
ORDER BY campaigns.name, coalesce(arm_statistics.p_best, 0) DESC, creatives.creative_id
""",
)

CAMPAIGN_REPORT = View(
    "campaign_report",
    "How does each campaign do, and which creative leads? Counts are learnt decisions; rates are in percent. "
    "clicks_pct of the control (drawn from all creatives alike) beside that of the engine is its uplift.",
    """
SELECT
    campaigns.name AS campaign,
    campaigns.status AS status,
    totals.creatives AS creatives,
    totals.active_creatives AS active_creatives,
    totals.impressions AS impressions,
    totals.clicks AS clicks,
    $click_share AS clicks_pct,
    totals.conversions AS conversions,
    totals.value AS value,
    totals.pending AS pending,
    leaders.external_id AS leader,
    $leader_ctr AS leader_ctr_pct,
    $leader_p_best AS leader_p_best_pct,
    $leader_loss AS leader_expected_loss_pct,
    $leader_remaining AS value_remaining_pct,
    coalesce(control.impressions, 0) AS control_impressions,
    $control_clicks AS control_clicks_pct,
    $engine_clicks AS engine_clicks_pct,
    CASE campaigns.horizon_mode WHEN 'fixed' THEN CAST(campaigns.horizon AS text)
        ELSE campaigns.horizon_mode END AS horizon,
    totals.refreshed_at AS refreshed_at
FROM campaigns
LEFT JOIN (
    SELECT
        creatives.campaign_id AS campaign_id,
        count(*) AS creatives,
        CAST(sum(CASE WHEN creatives.status = 'active' THEN 1 ELSE 0 END) AS bigint) AS active_creatives,
        CAST(sum(arm_statistics.impressions) AS bigint) AS impressions,
        CAST(sum(arm_statistics.clicks) AS bigint) AS clicks,
        CAST(sum(arm_statistics.conversions) AS bigint) AS conversions,
        sum(arm_statistics.value) AS value,
        CAST(sum(arm_statistics.pending_impressions) AS bigint) AS pending,
        max(arm_statistics.refreshed_at) AS refreshed_at
    FROM creatives
    JOIN arm_statistics ON arm_statistics.creative_id = creatives.creative_id
    GROUP BY creatives.campaign_id
) AS totals ON totals.campaign_id = campaigns.campaign_id
LEFT JOIN (
    SELECT
        creatives.campaign_id AS campaign_id,
        creatives.external_id AS external_id,
        arm_statistics.ctr AS ctr,
        arm_statistics.p_best AS p_best,
        arm_statistics.expected_loss AS expected_loss,
        arm_statistics.value_remaining AS value_remaining,
        row_number() OVER (
            PARTITION BY creatives.campaign_id ORDER BY arm_statistics.p_best DESC, creatives.creative_id
        ) AS place
    FROM creatives
    JOIN arm_statistics ON arm_statistics.creative_id = creatives.creative_id
    WHERE arm_statistics.p_best IS NOT NULL AND creatives.status = 'active'
) AS leaders ON leaders.campaign_id = campaigns.campaign_id AND leaders.place = 1
LEFT JOIN (
    SELECT
        both_kinds.campaign_id AS campaign_id,
        CAST(sum(both_kinds.impressions) AS bigint) AS impressions,
        CAST(sum(both_kinds.clicks) AS bigint) AS clicks
    FROM (
        SELECT campaign_id, count(*) AS impressions, sum(click) AS clicks
        FROM decisions
        WHERE is_control AND learnt_batch IS NOT NULL
        GROUP BY campaign_id
        UNION ALL
        SELECT creatives.campaign_id, sum(pruned_counts.impressions), sum(pruned_counts.clicks)
        FROM pruned_counts JOIN creatives ON creatives.creative_id = pruned_counts.creative_id
        WHERE pruned_counts.is_control
        GROUP BY creatives.campaign_id
    ) AS both_kinds
    GROUP BY both_kinds.campaign_id
) AS control ON control.campaign_id = campaigns.campaign_id
ORDER BY campaigns.name
""",
)

DECISION_LOG = View(
    "decision_log",
    "What was decided, with which probability, and what came of it? The data set for off-policy evaluation: "
    "click is NULL until the decision is settled, and candidates and propensities stand in the same order.",
    """
SELECT
    decisions.decision_id AS decision_id,
    campaigns.name AS campaign,
    creatives.external_id AS creative,
    decisions.decided_at AS decided_at,
    decisions.context AS context,
    decisions.propensity AS propensity,
    decisions.is_control AS is_control,
    decisions.click AS click,
    (
        SELECT count(*) FROM outcomes
        WHERE outcomes.decision_id = decisions.decision_id
            AND outcomes.kind = 'conversion' AND outcomes.valid AND NOT outcomes.late
    ) AS conversions,
    (
        SELECT coalesce(sum(outcomes.value), 0) FROM outcomes
        WHERE outcomes.decision_id = decisions.decision_id
            AND outcomes.kind = 'conversion' AND outcomes.valid AND NOT outcomes.late
    ) AS value,
    decisions.place AS place,
    decisions.list_propensity AS list_propensity,
    decisions.request_id AS request_id,
    decisions.model_version AS model_version,
    decisions.slots_version AS slots_version,
    decisions.horizon AS horizon,
    decisions.kappa AS kappa,
    decisions.point_set AS point_set,
    decisions.activated_at AS activated_at,
    decisions.settled_at AS settled_at,
    decisions.learnt_batch AS learnt_batch,
    decisions.creative_id AS creative_id,
    candidate_sets.creative_ids AS candidates,
    decisions.propensities AS propensities,
    $headline AS headline,
    $body AS body,
    $call_to_action AS call_to_action
FROM decisions
JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
JOIN creatives ON creatives.creative_id = decisions.creative_id
JOIN candidate_sets ON candidate_sets.candidate_set_id = decisions.candidate_set_id
""",
)

DAILY_CLICKS = View(
    "daily_clicks",
    "How many impressions and clicks did each campaign have on each day (UTC, of the impression)?",
    """
SELECT
    campaigns.name AS campaign,
    days.day AS day,
    CAST(sum(days.impressions) AS bigint) AS impressions,
    CAST(sum(days.settled) AS bigint) AS settled,
    CAST(sum(days.clicks) AS bigint) AS clicks,
    $settled_clicks AS clicks_pct
FROM (
    SELECT
        decisions.campaign_id AS campaign_id,
        $day AS day,
        count(*) AS impressions,
        count(decisions.click) AS settled,
        coalesce(sum(decisions.click), 0) AS clicks
    FROM decisions
    WHERE decisions.activated_at IS NOT NULL
    GROUP BY decisions.campaign_id, $day
    UNION ALL
    SELECT
        creatives.campaign_id,
        pruned_counts.day,
        sum(pruned_counts.impressions),
        sum(pruned_counts.impressions),
        sum(pruned_counts.clicks)
    FROM pruned_counts JOIN creatives ON creatives.creative_id = pruned_counts.creative_id
    GROUP BY creatives.campaign_id, pruned_counts.day
) AS days
JOIN campaigns ON campaigns.campaign_id = days.campaign_id
GROUP BY campaigns.name, days.day
ORDER BY campaigns.name, days.day
""",
)

LATE_OUTCOMES = View(
    "late_outcomes",
    "Which reports came too late to be learnt, and by how much?",
    """
SELECT
    outcomes.decision_id AS decision_id,
    campaigns.name AS campaign,
    creatives.external_id AS creative,
    outcomes.kind AS kind,
    outcomes.value AS value,
    decisions.activated_at AS activated_at,
    outcomes.occurred_at AS occurred_at,
    outcomes.received_at AS received_at,
    decisions.settled_at AS settled_at,
    decisions.click AS settled_click,
    $delay AS seconds_after_impression
FROM outcomes
JOIN decisions ON decisions.decision_id = outcomes.decision_id
JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
JOIN creatives ON creatives.creative_id = decisions.creative_id
WHERE outcomes.late
ORDER BY outcomes.received_at
""",
)

LEARNING_LAG = View(
    "learning_lag",
    "Does learning keep up? What waits to be settled or learnt, since when, and who holds the lease.",
    """
SELECT
    models.name AS model,
    (
        SELECT count(*) FROM decisions
        JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
        WHERE campaigns.model_id = models.model_id
            AND decisions.settles_at IS NOT NULL AND decisions.settled_at IS NULL
            AND decisions.settles_at <= $now
    ) AS due,
    (
        SELECT count(*) FROM decisions
        JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
        WHERE campaigns.model_id = models.model_id
            AND decisions.settled_at IS NOT NULL AND decisions.learnt_batch IS NULL
    ) AS unlearnt,
    (
        SELECT min(decisions.settled_at) FROM decisions
        JOIN campaigns ON campaigns.campaign_id = decisions.campaign_id
        WHERE campaigns.model_id = models.model_id
            AND decisions.settled_at IS NOT NULL AND decisions.learnt_batch IS NULL
    ) AS oldest_unlearnt_at,
    (SELECT max(step) FROM learn_log WHERE learn_log.model_id = models.model_id) AS newest_step,
    (SELECT max(logged_at) FROM learn_log WHERE learn_log.model_id = models.model_id) AS newest_step_at,
    (SELECT max(step) FROM posteriors WHERE posteriors.model_id = models.model_id) AS newest_snapshot,
    leases.owner AS learner,
    leases.expires_at AS lease_expires_at
FROM models
LEFT JOIN leases ON leases.model_id = models.model_id
ORDER BY models.name
""",
)

VIEWS = (ARM_REPORT, CAMPAIGN_REPORT, DAILY_CLICKS, DECISION_LOG, LATE_OUTCOMES, LEARNING_LAG)


def create_views(connection: Connection) -> None:
    """Create all views, each with its comment."""
    dialect = connection.dialect.name
    for view in VIEWS:
        select = Template(view.select).substitute(_fragments(dialect))
        connection.exec_driver_sql(f"CREATE VIEW {view.name} AS\n-- {view.answers}{select.rstrip()}")
        if dialect == "postgresql":
            comment = view.answers.replace("'", "''")
            connection.exec_driver_sql(f"COMMENT ON VIEW {view.name} IS '{comment}'")


def drop_views(connection: Connection) -> None:
    """Drop the views that are there: a table that one reads could not be altered under it."""
    for view in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {view.name}"))


def _fragments(dialect: str) -> dict[str, str]:
    words = FRAGMENTS[dialect]
    percent, rounded = words["percent"].format, words["rounded"].format
    return {
        **{field: words["text"].format(field) for field in ("headline", "body", "call_to_action")},
        "day": words["day"],
        "now": words["now"],
        "ctr": percent("arm_statistics.ctr"),
        "ctr_low": percent("arm_statistics.ctr_low"),
        "ctr_high": percent("arm_statistics.ctr_high"),
        "p_best": percent("arm_statistics.p_best"),
        "share": percent("arm_statistics.share"),
        "value_remaining": percent("arm_statistics.value_remaining"),
        "expected_loss": rounded("100.0 * arm_statistics.expected_loss"),
        "click_share": percent("1.0 * totals.clicks / nullif(totals.impressions, 0)"),
        "leader_ctr": percent("leaders.ctr"),
        "leader_p_best": percent("leaders.p_best"),
        "leader_loss": rounded("100.0 * leaders.expected_loss"),
        "leader_remaining": percent("leaders.value_remaining"),
        "control_clicks": percent("1.0 * control.clicks / nullif(control.impressions, 0)"),
        "engine_clicks": percent(
            "1.0 * (totals.clicks - coalesce(control.clicks, 0)) "
            "/ nullif(totals.impressions - coalesce(control.impressions, 0), 0)"
        ),
        "settled_clicks": percent("1.0 * sum(days.clicks) / nullif(sum(days.settled), 0)"),
        "delay": words["seconds"].format(
            "coalesce(outcomes.occurred_at, outcomes.received_at)", "decisions.activated_at"
        ),
    }
