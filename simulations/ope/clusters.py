"""Creatives in groups of like contents."""

import numpy as np
from jaxtyping import Float, Int

FEWEST = 4  # creatives; √4 clusters of two are the first that pool anything
MOST_PASSES = 100


def cluster_contents(content: Float[np.ndarray, "actions dim"]) -> Int[np.ndarray, "actions"]:
    """Return the cluster of each creative, √K of them for K creatives, by Lloyd's algorithm.

    The first centre is the content nearest the mean, each next one the farthest from all so far; so the same
    contents give the same clusters.

    Args:
        content: content features, one row a creative.

    References:
        S. P. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982;
        T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance", TCS 38, 1985: the start.
    """
    n = max(round(len(content) ** 0.5), 1)
    centres = content[[np.argmin(_distances(content, content.mean(axis=0, keepdims=True))[:, 0])]]
    while len(centres) < n:
        nearest = _distances(content, centres).min(axis=1)
        if nearest.max() == 0:  # fewer distinct contents than clusters
            break
        centres = np.concatenate([centres, content[[np.argmax(nearest)]]])
    cluster = np.full(len(content), -1)
    for _ in range(MOST_PASSES):
        nearest_centre = np.argmin(_distances(content, centres), axis=1)
        if np.array_equal(nearest_centre, cluster):
            break
        _, cluster = np.unique(nearest_centre, return_inverse=True)
        centres = np.stack([content[cluster == number].mean(axis=0) for number in range(cluster.max() + 1)])
    return cluster


def _distances(content: np.ndarray, centres: np.ndarray) -> Float[np.ndarray, "actions centres"]:
    """Return squared distances."""
    return ((content[:, None] - centres[None]) ** 2).sum(axis=2)
