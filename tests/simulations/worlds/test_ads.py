import collections
import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.errors import SimulationError
from simulations.worlds.ads import MAX_PRODUCTS, Ad, CatalogueError, catalogue

FULL = catalogue(0, products=MAX_PRODUCTS, creatives_per_product=170)


def test_copy_is_broad_enough() -> None:
    assert len({ad.headline for ad in FULL}) == len(FULL) >= 2_000
    assert len({ad.product for ad in FULL}) == MAX_PRODUCTS >= 12
    assert len({ad.offer for ad in FULL}) >= 8
    assert len({ad.tone for ad in FULL}) == 8
    assert len({ad.call_to_action for ad in FULL}) >= 16


def test_ids_are_unique_readable_slugs() -> None:
    assert len({ad.creative_id for ad in FULL}) == len(FULL)
    for ad in FULL:
        assert re.fullmatch(rf"{ad.product}-{ad.tone}-[0-9]+", ad.creative_id)


def test_same_seed_same_ads_and_another_seed_others() -> None:
    assert catalogue(7) == catalogue(7)
    assert catalogue(7) != catalogue(8)
    assert hash(catalogue(7)) == hash(catalogue(7))


def test_seed_is_pinned() -> None:
    # Worlds are built on these texts, so a change here changes published numbers: note it in the changelog.
    assert [ad.headline for ad in catalogue(1, products=1, creatives_per_product=3)] == [
        "48-hour flash sale. Cookware made for confident cooks.",
        "More patience than the cook. Free returns, always.",
        "Tired of flaking pans? Flip pancakes like a pro.",
    ]


@given(seed=st.integers(0, 2**32), products=st.integers(1, 4), creatives=st.integers(1, 12))
def test_smaller_catalogue_is_contained_in_the_larger(seed: int, products: int, creatives: int) -> None:
    small = catalogue(seed, products=products, creatives_per_product=creatives)
    large = catalogue(seed, products=products + 2, creatives_per_product=creatives + 5)
    by_product = collections.defaultdict(list)
    for ad in large:
        by_product[ad.product].append(ad)
    assert len(small) == products * creatives
    assert list(dict.fromkeys(ad.product for ad in small)) == list(by_product)[:products]
    assert list(small) == [ad for p in list(by_product)[:products] for ad in by_product[p][:creatives]]


def test_every_tone_comes_once_before_one_repeats() -> None:
    for start in range(0, 24, 8):
        ads = [ad for ad in FULL if ad.product == "coffee"][start : start + 8]
        assert len({ad.tone for ad in ads}) == 8


@pytest.mark.parametrize("ad", FULL[::7], ids=lambda ad: ad.creative_id)
def test_texts_are_well_formed(ad: Ad) -> None:
    assert len(ad.headline) <= 90
    assert re.search(r"[.?!]$", ad.body)
    for text in (ad.headline, ad.body, ad.call_to_action):
        assert text == text.strip()
        assert not re.search(r"[{}]|  |\?\.|\.\.| [,.?!]", text)
        assert not re.search(r"(?:^|[.?!] )[a-z]", text), "each sentence starts with a capital letter"
    sentences = re.split(r"(?<=[.?!]) ", ad.headline)
    assert len(sentences) == 1 or sentences[-1][-1] in ".?!", "a headline of two sentences ends the last one"


def test_body_does_not_repeat_its_headline() -> None:
    for ad in FULL:
        openings = ad.body.split(". ")[:-1]
        assert not [text for text in openings if text.lower() in ad.headline.lower()], ad


def test_offers_fit_the_product() -> None:
    offers = {
        product: {ad.offer for ad in FULL if ad.product == product} for product in ("coffee", "mattresses")
    }
    assert "subscribe" in offers["coffee"] - offers["mattresses"]
    assert "trade-in" in offers["mattresses"] - offers["coffee"]
    assert "bundle" not in offers["mattresses"]
    assert all(len(found) >= 8 for found in offers.values())


def test_headline_that_names_an_offer_carries_it() -> None:
    named = {
        "subscribe and save": "subscribe",
        "trade in": "trade-in",
        "money back": "guarantee",
        "25% off": "flash-sale",
    }
    for ad in FULL:
        for words, offer in named.items():
            if words in ad.headline.lower():
                assert ad.offer == offer, ad
    assert {ad.offer for ad in FULL} >= set(named.values())


def test_ads_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL[0].headline = "Better"  # type: ignore[misc]  # the point of the test


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # the legacy state is what is being watched
    catalogue(5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002  # the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -3}, "seed must be at least 0, got -3"),
        ({"products": 0}, f"between 1 and {MAX_PRODUCTS}, got 0"),
        ({"products": 99}, f"between 1 and {MAX_PRODUCTS}, got 99"),
        ({"creatives_per_product": 0}, "creatives_per_product must be at least 1, got 0"),
        (
            {"creatives_per_product": 5_000},
            r"at most 3\d\d for coffee, got 5000|at most 4\d\d for [a-z-]+, got 5000",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(CatalogueError, match=message) as caught:
        catalogue(**{"seed": 0} | arguments)
    assert isinstance(caught.value, SimulationError)
    assert isinstance(caught.value, ValueError)
