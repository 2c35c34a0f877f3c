"""Policies on synthetic worlds: the loop, compiled, over worlds and seeds."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import Array

from bandit.features.design import DIM, N_CONTENT
from bandit.jax_runtime import double_precision
from simulations.delayed_feedback import delayed, known_as_of
from simulations.errors import unknown
from simulations.loop import Step, play, truthful
from simulations.policies.base import Policy
from simulations.policies.engine import ROOM, EngineState, design_of_contents
from simulations.policies.registry import IN_CONTEXTS, Numbers, Shop, numbers_of, program_of
from simulations.policies.settings import ENDS, WORLD_SETTINGS, PolicySetting
from simulations.reports.scores import Played, played_of
from simulations.worlds.ad_features import Texts
from simulations.worlds.drift import Changes, Course, batches_to_wait, draw_course
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import EffectSizes, World, draw_truth, launch_mean, make_world, traffic_of

BATCH = 200  # impressions between two updates
N_SEEDS = 8
LEAST_ROOM = 256  # batches
WORDS, WORD_SHARE = 2, 1 / 3  # folded into a world's key; share of the texts that have a word
COURSE = 1  # folded into a world's key for its changes, so that they leave the rest of it as it is
# Root mean square distance of an ad from its campaign's mean: about that of the catalogue's ads, 0.6.
CONTENT_LENGTH = 0.7
POLICIES = tuple(WORLD_SETTINGS)


def draw_worlds(
    seed: int,
    *,
    n_worlds: int = N_SEEDS,
    n_creatives: int = 20,
    sizes: EffectSizes | None = None,
    changes: Changes | None = None,
    impressions: int = 100_000,
    n_words: int = 0,
) -> list[World]:
    """Draw worlds of different shops, one campaign each, for runs without an encoder.

    Contents are random directions of the length that the catalogue's ads have.

    Args:
        seed: a non-negative integer; the same one draws the same worlds.
        n_worlds: how many.
        n_creatives: creatives of each.
        sizes: how strong the effects are.
        changes: how the worlds change; None for not at all. The worlds are otherwise the same.
        impressions: of the run over which they change.
        n_words: words that texts are made of, each in every third text; their weights are `sizes.words`.
            Policies do not see them. The worlds are otherwise the same.

    Raises:
        WorldError: a number is out of range.
    """
    if seed < 0 or n_worlds < 1 or n_creatives < 1 or n_words < 0:
        raise WorldError(
            "expected seed >= 0, n_worlds >= 1, n_creatives >= 1 and n_words >= 0, "
            f"got seed={seed}, n_worlds={n_worlds}, n_creatives={n_creatives}, n_words={n_words}"
        )
    with double_precision():
        keys = jax.random.split(jax.random.key(seed), n_worlds)
        return [
            _world(key, n_creatives, sizes or EffectSizes(), changes, impressions, n_words) for key in keys
        ]


def draw_world(
    seed: int,
    number: int,
    *,
    n_creatives: int = 20,
    sizes: EffectSizes | None = None,
    changes: Changes | None = None,
    impressions: int = 100_000,
    n_words: int = 0,
    texts: Texts | None = None,
) -> World:
    """Draw one of the worlds of a seed, as in `draw_worlds`.

    Args:
        seed: of the worlds.
        number: which of them, from 0.
        n_creatives: its creatives.
        sizes: how strong the effects are.
        changes: how it changes; None for not at all.
        impressions: of the run over which it changes.
        n_words: words that its texts are made of.
        texts: of its creatives, with their words, in place of random ones. All else is the same.

    Raises:
        WorldError: there are not as many texts as creatives, or they have words of their own besides.
    """
    if texts is not None and (len(texts.content) != n_creatives or n_words):
        raise WorldError(
            f"expected a text for each of {n_creatives} creatives and n_words=0, for texts have their own "
            f"words; got {len(texts.content)} texts and n_words={n_words}"
        )
    with double_precision():
        key = jax.random.split(jax.random.key(seed), number + 1)[number]
        return _world(key, n_creatives, sizes or EffectSizes(), changes, impressions, n_words, texts)


def _world(
    key: Array,
    n_creatives: int,
    sizes: EffectSizes,
    changes: Changes | None,
    impressions: int,
    n_words: int,
    texts: Texts | None = None,
) -> World:
    if texts is None:
        world = _drawn_world(key, n_creatives, sizes, n_words)
    else:
        world = _written_world(key, jnp.asarray(texts.content, float), jnp.asarray(texts.words), sizes)
    if changes is None:
        return world
    return world._replace(course=_drawn_course(key, changes, n_creatives, impressions))


@partial(jax.jit, static_argnums=(1, 2, 3))
def _drawn_course(key: Array, changes: Changes, n_creatives: int, impressions: int) -> Course:
    return draw_course(jax.random.fold_in(key, COURSE), changes, n_creatives, impressions)


def draw_words(key: Array, n_creatives: int, n_words: int) -> Array:
    """Return which words each creative's text has, [creatives, words] of 0 and 1; `key` is the world's."""
    has_word = jax.random.bernoulli(jax.random.fold_in(key, WORDS), WORD_SHARE, (n_creatives, n_words))
    return has_word.astype(float)


@partial(jax.jit, static_argnames=("n_creatives", "sizes", "n_words"))
def _drawn_world(key: Array, n_creatives: int, sizes: EffectSizes, n_words: int) -> World:
    content = jax.random.normal(jax.random.split(key, 3)[1], (n_creatives, N_CONTENT))
    content *= CONTENT_LENGTH / jnp.linalg.norm(content, axis=1, keepdims=True)
    return _written_world(key, content, draw_words(key, n_creatives, n_words), sizes)


@partial(jax.jit, static_argnames="sizes")
def _written_world(key: Array, content: Array, words: Array, sizes: EffectSizes) -> World:
    key_truth, _, key_world = jax.random.split(key, 3)
    truth = draw_truth(key_truth, words.shape[1], sizes)
    return make_world(key_world, truth, content, words, sizes)


def play_worlds(
    worlds: Sequence[World],
    setting: PolicySetting,
    impressions: int,
    *,
    seeds: Sequence[int] | None = None,
    batch: int = BATCH,
    advance: Callable[[int], None] = lambda _: None,
) -> Played:
    """Let one policy play worlds from the engine's default prior.

    The traffic of a run depends on its seed alone, so that policies meet the same requests and uniforms.

    Args:
        worlds: one per run, with the same number of creatives and the same changes.
        setting: the policy.
        impressions: of each run, in whole batches; also the horizon that the policy is told.
        seeds: one per run; 0, 1, … when absent.
        batch: impressions between two updates.
        advance: told the number of finished runs now and then.

    Returns:
        What it earned.

    Raises:
        WorldError: the policy is unknown, no batch fits the impressions, or seeds do not match the worlds.
        PolicyError: the setting has a number that the policy does not read, or lacks one.
    """
    seeds = range(len(worlds)) if seeds is None else seeds
    _check(worlds, setting, impressions, seeds, batch)
    course = worlds[0].course
    n_batches = impressions // batch
    # A program serves runs of many lengths: its room is rounded up to a power of two.
    room = max(LEAST_ROOM, 1 << (n_batches - 1).bit_length())
    wait = 0 if course is None else min(batches_to_wait(course, batch), room)
    run = _compiled(program_of(setting.policy), batch, room, wait)
    steps = []
    with double_precision():
        numbers = numbers_of(setting, IN_CONTEXTS)
        # One run at a time: mapped over runs, the program is no faster on a CPU and takes longer to compile.
        for world, seed in zip(worlds, seeds, strict=True):
            steps.append(jax.device_get(run(numbers, world, n_batches, jax.random.key(seed))))
            advance(1)
    return played_of(setting, batch, steps, n_batches)


def _check(
    worlds: Sequence[World],
    setting: PolicySetting,
    impressions: int,
    seeds: Sequence[int],
    batch: int,
) -> None:
    if setting.policy not in (*POLICIES, *ENDS):
        raise WorldError(unknown("policy", setting.policy, POLICIES))
    if not worlds or len(worlds) != len(seeds):
        raise WorldError(
            f"expected a seed for each of at least one world, got {len(worlds)} worlds and {len(seeds)} seeds"
        )
    if not 1 <= batch <= impressions:
        raise WorldError(f"expected 1 <= batch <= impressions, got batch={batch}, impressions={impressions}")


@cache
def _compiled(name: str, batch: int, room: int, wait: int) -> Callable[..., Step]:
    def one(numbers: Numbers, world: World, n_batches: Array, key: Array) -> Step:
        scene, horizon = traffic_of(world, batch), (batch * n_batches).astype(float)
        policy = policy_in_world(name, world, horizon, numbers, room=room * batch)
        if name not in ENDS:  # these learn nothing
            as_of = traffic_as_of if IN_CONTEXTS[name].counts_traffic else known_as_of
            policy = delayed(policy, wait, batch, DIM, as_of)
        return play(policy, truthful(scene) if name == "oracle" else scene, n_batches, key, room)[1]

    return jax.jit(one)


def policy_in_world(
    name: str, world: World, horizon: Array | float, numbers: Numbers, *, room: int = ROOM
) -> Policy:
    """Return a policy for one campaign of a shop.

    Args:
        name: out of `registry.IN_CONTEXTS`.
        world: its contents are read, never its truth.
        horizon: impressions in all, which the policy is told.
        numbers: the policy's.
        room: impressions in all at most.
    """
    shop = Shop(
        design_of_contents(world.content, launch_mean(world)),
        jnp.asarray(horizon, float),
        content=world.content,
        per_day=Changes().per_day if world.course is None else world.course.per_day,
        room=room,
    )
    return IN_CONTEXTS[name].make(shop, numbers)


def traffic_as_of(known: EngineState, played: Array) -> EngineState:
    """Return the state with all traffic counted, also what is not learnt yet; as the engine counts it."""
    return known._replace(so_far=played)
