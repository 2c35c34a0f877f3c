"""Why a creative's click rate is estimated as it is: in numbers, and in one sentence."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.features.context import context_vector
from bandit.features.design import N_CONTENT, design_row
from bandit.jax_runtime import double_precision
from bandit.learning.kernels import explain_arm
from bandit.learning.view import PosteriorView
from bandit.model.catalog import CampaignEntry
from bandit.model.content import Reading
from bandit.posterior import averaged_rate
from bandit.types import Draw, Explanation, Part, Word, Wording
from encoders import attribute_fields
from storage import ContextRecord, CreativeRecord, DecisionRecord

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
    view: PosteriorView,
    schema: ContextRecord,
    entry: CampaignEntry,
    creative: CreativeRecord,
    context: Mapping[str, object],
    decision: DecisionRecord | None = None,
) -> Explanation:
    """Explain the estimate for one creative in one context, as the posterior stands now.

    Args:
        view: The posterior.
        schema: What the model knows of contexts; fields it does not know count for nothing.
        entry: The campaign.
        creative: One of its creatives.
        context: A request's context; an empty one is the average.
        decision: The decision that chose the creative in this context, if one is to be explained: the context
            means what it meant then.
    """
    vector = context_vector(context, schema, None if decision is None else decision.slots_version)
    with double_precision():
        parts = explain_arm(
            view.state,
            view.tables,
            jnp.asarray(vector),
            jnp.asarray(view.catalog.arm[creative.creative_id]),
            jnp.asarray(entry.index),
        )
        ctr = float(averaged_rate(parts.logit_mean, parts.logit_variance))
        parts = jax.device_get(parts)
    shown = tuple(
        Part(name=name, logit=float(logit), sd=float(sd))
        for name, logit, sd in zip(PARTS, parts.mean, parts.sd, strict=True)
    )
    sd = float(np.sqrt(parts.logit_variance))
    sentence = _sentence(creative.external_id, shown, ctr, sd)
    draw = None if decision is None else _draw(decision)
    return Explanation(
        campaign=entry.record.name,
        creative_id=creative.external_id,
        parts=shown,
        logit=float(parts.logit_mean),
        sd=sd,
        ctr=ctr,
        sentence=sentence if draw is None else f"{sentence} {_drawn(draw)}",
        version=view.step,
        draw=draw,
    )


def text_direction(
    view: PosteriorView,
    schema: ContextRecord,
    context: Mapping[str, object],
    decision: DecisionRecord | None = None,
) -> Float[np.ndarray, "content"]:
    """Return d, with which a creative's content and interaction add d · content to its logit.

    The logit is linear in the content, so d is its gradient.

    Args:
        view: The posterior.
        schema: As for `explain`.
        context: As for `explain`.
        decision: As for `explain`.
    """
    vector = context_vector(context, schema, None if decision is None else decision.slots_version)
    with double_precision():
        weights, nothing = view.state.weights, jnp.zeros(N_CONTENT)

        def logit(content: jax.Array) -> jax.Array:
            return design_row(jnp.asarray(vector), content, nothing) @ weights

        return np.asarray(jax.grad(logit)(nothing))


def read_words(texts: Mapping[str, str], reading: Reading) -> Wording:
    """Say what each word of a creative carries; takes as long as encoding a hundred texts.

    Args:
        texts: Its texts by field.
        reading: For the direction of `text_direction`.

    Raises:
        AttributionError: The encoder gives vectors and nothing else.
    """
    found = attribute_fields(reading.encoder, texts, reading.along)
    return Wording(
        texts=found.texts,
        words=tuple(
            Word(
                field=word.field,
                start=word.start,
                end=word.end,
                text=found.texts[word.field][word.start : word.end],
                logit=word.share,
            )
            for word in found.words
        ),
        masked=found.baseline + reading.constant,
        logit=found.total + reading.constant,
        cut=found.cut,
    )


def _draw(decision: DecisionRecord) -> Draw:
    return Draw(
        decision_id=decision.decision_id,
        propensity=decision.propensity,
        horizon=decision.horizon,
        kappa=decision.kappa,
        is_control=decision.is_control,
        model_version=decision.model_version,
        decided_at=decision.decided_at,
    )


def _drawn(draw: Draw) -> str:
    """Say how a decision was drawn."""
    ahead = (
        "without an end in sight"
        if draw.horizon is None
        else f"with {draw.horizon:,.0f} impressions an arm in sight (H)"
    )
    control = ", as control," if draw.is_control else ""
    return (
        f"Decision {draw.decision_id} chose it{control} with a probability of {100 * draw.propensity:.2f} %, "
        f"at learning step {draw.model_version}, {ahead} and κ = {draw.kappa:g}."
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
