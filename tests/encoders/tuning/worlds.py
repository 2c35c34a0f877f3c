"""Campaigns in which one word brings clicks."""

import numpy as np

from encoders.tuning import PastCampaign

OTHERS = "returns always flash sale only today new arrivals for you winter coat warm light"
EFFECT = 1.0  # of "free", on the logit; and of "winter", on that of a conversion after a click


def planted(n_campaigns: int, seed: int) -> list[PastCampaign]:
    """Return campaigns of four headlines, shown 3,000 times each; half have the word, at any place."""
    rng = np.random.default_rng(seed)
    campaigns = []
    for number in range(n_campaigns):
        words = [rng.choice(OTHERS.split(), 4, replace=False).tolist() for _ in range(4)]
        is_free = rng.random(4) < 0.5
        texts = [
            " ".join(rng.permutation(["free", *own[1:]] if free else own))
            for own, free in zip(words, is_free, strict=True)
        ]
        rate = 1 / (1 + np.exp(3.5 + rng.normal() * 0.5 - EFFECT * is_free))
        campaigns.append(
            PastCampaign(
                f"campaign {number}",
                tuple({"headline": text} for text in texts),
                np.full(4, 3000.0),
                rng.binomial(3000, rate).astype(float),
            )
        )
    return campaigns


def with_conversions(campaigns: list[PastCampaign], seed: int) -> list[PastCampaign]:
    """Return them with conversions: of a fifth of the clicks, and of more where "winter" is said."""
    rng = np.random.default_rng(seed)
    made = []
    for campaign in campaigns:
        is_winter = np.array(["winter" in creative["headline"] for creative in campaign.creatives])
        rate = 1 / (1 + np.exp(1.5 - EFFECT * is_winter))
        made.append(
            campaign._replace(conversions=rng.binomial(campaign.clicks.astype(int), rate).astype(float))
        )
    return made
