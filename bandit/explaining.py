"""Why a creative's click rate is estimated as it is: in numbers, and in one sentence."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bandit.context import context_vector
from bandit.learner import View
from bandit.numerics import double_precision
from bandit.posterior import averaged_rate
from bandit.programs import explain_arm
from bandit.records import Explanation, Part
from bandit.roster import CampaignEntry
from storage import ContextRecord, CreativeRecord

PARTS = ("base rate", "context", "content", "interaction", "campaign", "creative")
WORDS = {
    "context": "the context",
    "content": "what its text says",
    "interaction": "how that text suits the context",
    "campaign": "the campaign",
    "creative": "what is the creative's own",
}
SMALLEST_SHIFT = 0.005  # of the odds; smaller ones are not worth words


def explain(
    view: View,
    schema: ContextRecord,
    entry: CampaignEntry,
    creative: CreativeRecord,
    context: Mapping[str, object],
) -> Explanation:
    """Explain the estimate for one creative in one context, as the posterior stands now.

    Args:
        view: The posterior.
        schema: What the model knows of contexts; fields it does not know count for nothing.
        entry: The campaign.
        creative: One of its creatives.
        context: A request's context; an empty one is the average.
    """
    vector = context_vector(context, schema)
    with double_precision():
        parts = explain_arm(
            view.state,
            view.tables,
            jnp.asarray(vector),
            jnp.asarray(view.roster.arm[creative.creative_id]),
            jnp.asarray(entry.index),
        )
        ctr = float(averaged_rate(parts.logit_mean, parts.logit_variance))
        parts = jax.device_get(parts)
    shown = tuple(
        Part(name=name, logit=float(logit), sd=float(sd))
        for name, logit, sd in zip(PARTS, parts.mean, parts.sd, strict=True)
    )
    sd = float(np.sqrt(parts.logit_variance))
    return Explanation(
        campaign=entry.record.name,
        creative_id=creative.external_id,
        parts=shown,
        logit=float(parts.logit_mean),
        sd=sd,
        ctr=ctr,
        sentence=_sentence(creative.external_id, shown, ctr, sd),
        version=view.step,
    )


def _sentence(creative_id: str, parts: Sequence[Part], ctr: float, sd: float) -> str:
    base, *shifts = parts
    rate = 1 / (1 + math.exp(-base.logit))
    told = [
        f"{100 * math.expm1(part.logit):+.0f} % for {WORDS[part.name]}"
        for part in sorted(shifts, key=lambda part: -abs(part.logit))
        if abs(math.expm1(part.logit)) >= SMALLEST_SHIFT
    ]
    because = f", and odds of {', '.join(told)}" if told else " alone"
    return (
        f"{creative_id}: an estimated click rate of {100 * ctr:.2f} %, known to a factor of "
        f"{math.exp(1.96 * sd):.2f} either way, from a base rate of {100 * rate:.2f} %{because}."
    )
