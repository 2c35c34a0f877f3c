"""Clusters of contents: found where they are, the same each time, never empty."""

import numpy as np
import pytest

from simulations.ope.clusters import cluster_contents


def test_groups_that_lie_apart_are_found_in_any_order() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(4), 4)
    content = 10 * np.eye(5)[group] + rng.normal(scale=0.3, size=(16, 5))
    order = rng.permutation(16)
    for each in (content, content[order]):
        cluster = cluster_contents(each)
        assert np.array_equal(cluster, cluster_contents(each))
        assert len(np.unique(cluster)) == 4
    found = cluster_contents(content[order])
    assert all(len(set(found[group[order] == number])) == 1 for number in range(4))


@pytest.mark.parametrize(("n", "clusters"), [(4, 2), (9, 3), (20, 4), (100, 10)])
def test_there_are_as_many_as_the_root_of_the_creatives(n: int, clusters: int) -> None:
    cluster = cluster_contents(np.random.default_rng(n).normal(size=(n, 8)))
    assert sorted(set(cluster.tolist())) == list(range(clusters))


def test_each_is_in_the_cluster_whose_mean_is_nearest() -> None:
    content = np.random.default_rng(3).normal(size=(40, 6))
    cluster = cluster_contents(content)
    means = np.stack([content[cluster == number].mean(axis=0) for number in range(cluster.max() + 1)])
    assert np.array_equal(np.argmin(((content[:, None] - means) ** 2).sum(axis=2), axis=1), cluster)


def test_equal_contents_share_a_cluster() -> None:
    assert cluster_contents(np.ones((9, 3))).tolist() == [0] * 9
    assert len(set(cluster_contents(np.eye(2)[np.arange(16) % 2]).tolist())) == 2
