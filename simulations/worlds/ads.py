"""An ad catalogue that the package writes by itself: products × offers × tones × calls to action.

The copy is data (ads.toml, which also explains the slots); this file turns it into ads. A headline is
one template of a tone, filled with one product's phrases; the body avoids what the headline has spent.
"""

import dataclasses
import importlib.resources
import itertools
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from simulations.errors import SimulationError

_COPY: Final[dict[str, Any]] = tomllib.loads(
    importlib.resources.files("simulations.worlds").joinpath("ads.toml").read_text("utf-8")
)
MAX_PRODUCTS: Final = len(_COPY["products"])


class CatalogueError(SimulationError, ValueError):
    """The copy cannot fill the catalogue that was asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ad:
    """One creative of the catalogue.

    Attributes:
        product: slug of the product, e.g. "running-shoes"; the ads of one product compete with each other.
        creative_id: readable slug, unique in the catalogue: product, tone, number.
        headline: one or two short sentences, unique in the catalogue.
        body: a few sentences, of which the last explains the offer.
        call_to_action: text of the button.
        tone: one of eight, e.g. "calm" or "urgent".
        offer: slug of the offer, e.g. "free-returns".
    """

    product: str
    creative_id: str
    headline: str
    body: str
    call_to_action: str
    tone: str
    offer: str


class _Headline(NamedTuple):
    text: str
    spent: frozenset[str]
    offer: str | None


def catalogue(seed: int, *, products: int = 6, creatives_per_product: int = 10) -> tuple[Ad, ...]:
    """Write a catalogue of ads; the same arguments give the same ads.

    A larger catalogue contains the smaller one of the same seed: nothing is drawn in an order that depends on
    how much is asked for. A product goes through all tones before it repeats one.

    Args:
        seed: a non-negative integer.
        products: number of products, 1 to `MAX_PRODUCTS`.
        creatives_per_product: number of ads of each product, at least 1; the copy of a product ends after
            some 300.

    Returns:
        `products * creatives_per_product` ads, product by product; ids and headlines are unique.

    Raises:
        CatalogueError: when a number is out of range, or the copy of a product has no more headlines.

    >>> [ad.creative_id for ad in catalogue(3, products=1, creatives_per_product=2)]
    ['rain-jackets-thrifty-1', 'rain-jackets-curious-1']
    """
    if seed < 0:
        raise CatalogueError(f"seed must be at least 0, got {seed}")
    if not 1 <= products <= MAX_PRODUCTS:
        raise CatalogueError(f"products must be between 1 and {MAX_PRODUCTS}, got {products}")
    if creatives_per_product < 1:
        raise CatalogueError(f"creatives_per_product must be at least 1, got {creatives_per_product}")
    slugs = list(_COPY["products"])
    order = np.random.default_rng(seed).permutation(MAX_PRODUCTS)[:products]
    return tuple(
        ad
        for index in order.tolist()
        for ad in _product_ads(slugs[index], np.random.default_rng([seed, index]), creatives_per_product)
    )


def _product_ads(product: str, rng: np.random.Generator, n_ads: int) -> Iterator[Ad]:
    """Yield the ads of one product, tone by tone in a shuffled order, until there are enough."""
    copy = _COPY["products"][product]
    offers = {slug: offer for slug, offer in _COPY["offers"].items() if copy["kind"] in offer["kinds"]}
    piles = {tone: _headlines(tone, copy, offers) for tone in _COPY["tones"]}
    n_headlines = sum(map(len, piles.values()))
    if n_ads > n_headlines:
        raise CatalogueError(
            f"creatives_per_product must be at most {n_headlines} for {product}, got {n_ads}: "
            "ask for fewer, or add phrases to ads.toml"
        )
    tones = rng.permutation(list(piles)).tolist()
    for pile in piles.values():
        rng.shuffle(pile)
    rounds = itertools.zip_longest(*(piles[tone] for tone in tones))
    in_turn = (
        (tone, number, headline)
        for number, row in enumerate(rounds, start=1)
        for tone, headline in zip(tones, row, strict=True)
        if headline is not None
    )
    for tone, number, headline in itertools.islice(in_turn, n_ads):
        offer = headline.offer or _pick(rng, list(offers))
        yield Ad(
            product=product,
            creative_id=f"{product}-{tone}-{number}",
            headline=headline.text,
            body=f"{_body(rng, copy, headline.spent)} {offers[offer]['sentence']}",
            call_to_action=_pick(rng, _COPY["tones"][tone]["calls"]),
            tone=tone,
            offer=offer,
        )


def _headlines(tone: str, copy: Mapping[str, Any], offers: Mapping[str, Any]) -> list[_Headline]:
    """Fill every template of a tone in every way; an offer comes with its slug."""
    headlines = []
    for template in _COPY["tones"][tone]["headlines"]:
        slots = _slots(template)
        offer_slot = next((slot for slot in slots if slot in ("offer", "limited")), None)
        free = [slot for slot in slots if slot != offer_slot]
        for chosen in itertools.product(*(_phrases(copy, slot) for slot in free)):
            filled = dict(zip(free, chosen, strict=True))
            spent = frozenset(chosen)
            if offer_slot is None:
                headlines.append(_Headline(_sentences(template.format(**filled)), spent, None))
                continue
            for slug in (slug for slug, offer in offers.items() if offer_slot in offer):
                filled[offer_slot] = offers[slug][offer_slot].format(name=copy["name"])
                headlines.append(_Headline(_sentences(template.format(**filled)), spent, slug))
    return headlines


def _body(rng: np.random.Generator, copy: Mapping[str, Any], spent: frozenset[str]) -> str:
    """Write the opening of a body from phrases that the headline has not used."""
    template = _pick(rng, _COPY["bodies"])
    filled = {
        slot: _pick(rng, [phrase for phrase in _phrases(copy, slot) if phrase not in spent])
        for slot in _slots(template)
    }
    return _sentences(template.format(**filled))


def _slots(template: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(template) if field]


def _phrases(copy: Mapping[str, Any], slot: str) -> list[str]:
    """List what may fill a slot: deadlines are common to all products, a name is a single phrase."""
    if slot == "until":
        return list(_COPY["until"])
    return [copy["name"]] if slot == "name" else list(copy[slot])


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _sentences(text: str) -> str:
    """Capitalise each sentence, and drop the full stop after a question mark."""
    text = text.replace("?.", "?")
    return re.sub(r"(?:^|[.?!] )\w", lambda start: start[0].upper(), text)
