"""The libraries that the engine is compared with, each used as its documentation has it, at its best here.

None of them stores anything: decisions, outcomes and model are in the memory of the process. Their settings
were chosen by `tests.benchmarks.tune` on worlds that the benchmark does not play. `make bench` installs
them; the constructor of one that is not installed raises `ModuleNotFoundError`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bandit.features.design import N_INTERACTING, PriorScales
from tests.benchmarks.contenders import Contender, Contexts
from tests.benchmarks.one_campaign import ARMS, OneCampaign, one_hot

NOTHING = "nothing"
_SCALES = PriorScales()
_INTERCEPT = 4.0  # wide beside what the data before the first say of it


class VowpalWabbit:
    """`--cb_explore_adf`: a regression on text and context with interactions, and a way to explore on top.

    For choosing, the ads are parsed once and reused: twice as fast as passing texts, with the same result. It
    crashes when it learns from reused ones (9.11.9).
    """

    keeps = NOTHING

    def __init__(self, campaign: OneCampaign, *, seed: int, options: str, texts: str) -> None:
        from vowpalwabbit import Workspace

        self.name = f"Vowpal Wabbit, {options.split(maxsplit=1)[0].lstrip('-')}"
        self.told = texts
        interactions = "--interactions ca --interactions ct"
        self._vw = Workspace(f"--cb_explore_adf {options} {interactions} --quiet --random_seed {seed}")
        self._lines = [f"|a id={arm} |t {text}" for arm, text in enumerate(_texts(campaign, texts))]
        self._ads = self._vw.parse(["shared |c", *self._lines])[1:]
        self._rng = np.random.default_rng(seed)
        self._chosen: list[tuple[str, int, float]] = []

    def prepare(self) -> None:
        pass

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        self._chosen = [self._choose_one(context) for context in contexts]
        return np.array([arm for _, arm, _ in self._chosen])

    def _choose_one(self, context: dict[str, str]) -> tuple[str, int, float]:
        line = f"shared |c device={context['device']} daypart={context['daypart']}"
        shared = self._vw.parse([line, self._lines[0]])
        weights = np.cumsum(self._vw.predict([shared[0], *self._ads]))
        self._vw.finish_example(shared)
        # RegCB gives each arm that is left a weight of 1; the others give probabilities.
        arm = int(np.searchsorted(weights, self._rng.random() * weights[-1], side="right"))
        before = weights[arm - 1] if arm else 0.0
        return line, arm, float((weights[arm] - before) / weights[-1])

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        for (line, arm, propensity), click in zip(self._chosen, clicks, strict=True):
            lines = [line, *self._lines]
            lines[1 + arm] = f"0:{-int(click)}:{propensity} {lines[1 + arm]}"  # the cost of a click is -1
            self._vw.learn(lines)

    def close(self) -> None:
        self._vw.finish()


class MabWiser:
    """LinTS or LinUCB: a ridge regression of each arm on the context; it cannot take features of arms."""

    told = "ids"
    keeps = NOTHING

    def __init__(
        self, campaign: OneCampaign, *, seed: int, policy: str, alpha: float, l2_lambda: float
    ) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.name = f"MABWiser, {policy}"
        policies = {"LinTS": LearningPolicy.LinTS, "LinUCB": LearningPolicy.LinUCB}
        learning = policies[policy](alpha=alpha, l2_lambda=l2_lambda)
        self._mab = MAB(list(range(ARMS)), learning, seed=seed)
        self._contexts = one_hot(campaign.contexts[:1])
        # It must be fitted before it predicts; a context of zeros teaches it nothing.
        self._mab.fit([0], [0], np.zeros_like(self._contexts))
        self._chosen = np.zeros(1, int)

    def prepare(self) -> None:
        pass

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        self._contexts = one_hot(contexts)
        self._chosen = np.atleast_1d(np.asarray(self._mab.predict(self._contexts)))
        return self._chosen

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        self._mab.partial_fit(self._chosen, clicks.astype(float), self._contexts)

    def close(self) -> None:
        pass


class BayesianBandits:
    """One Bayesian logistic regression for all arms, on context, components, arms and interactions.

    Columns are scaled: its one prior precision then gives each group the standard deviation of
    `bandit.features.design.PriorScales`, times `scale`.
    """

    told = "components"
    keeps = NOTHING

    def __init__(self, campaign: OneCampaign, *, seed: int, policy: str, scale: float) -> None:
        import bayesianbandits as bb

        name, _, setting = policy.partition(" ")
        self.name = f"bayesianbandits, {name}"
        policies = {
            "Thompson": bb.ThompsonSampling,
            "UCB": bb.UpperConfidenceBound,
            "IDS": bb.InformationDirectedSampling,
            "ε-greedy": bb.EpsilonGreedy,
        }
        # A quantile needs fewer draws than the thousand of its default, which make it ten times as slow.
        draws = {} if name == "Thompson" else {"samples": 100}
        self._content, self._scale = campaign.content, scale
        self._contexts = one_hot(campaign.contexts[:1])
        self._chosen = np.zeros(1, int)
        self._agent = bb.LipschitzContextualAgent(
            arms=[bb.Arm(arm, learner=None) for arm in range(ARMS)],
            policy=policies[name](*([float(setting)] if setting else []), **draws),
            arm_featurizer=bb.FunctionArmFeaturizer(self._features),
            learner=bb.BayesianGLM(approximator=bb.LaplaceApproximator(n_iter=20)),
            random_seed=seed,
        )
        # What the engine believes beforehand, as data: one click in fifty impressions.
        before = np.zeros((1, self._features(self._contexts, [0]).shape[1]))
        before[0, 0] = _INTERCEPT
        self._agent.learner.fit(
            before, np.array([_SCALES.base_rate]), sample_weight=np.array([1 / _SCALES.base_rate])
        )

    def prepare(self) -> None:
        pass

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        self._contexts = one_hot(contexts)
        self._chosen = np.array(self._agent.pull(self._contexts))
        return self._chosen

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        # All arms share one learner, which takes the batch at once; the agent's `update` takes arm by arm.
        rows = self._rows(self._contexts, self._chosen)
        self._agent.learner.partial_fit(rows, clicks.astype(float))

    def close(self) -> None:
        pass

    def _features(
        self, contexts: Float[np.ndarray, "contexts 8"], arms: Sequence[int]
    ) -> Float[np.ndarray, "contexts features arms"]:
        every = [self._rows(contexts, np.full(len(contexts), arm)) for arm in arms]
        return np.stack(every).transpose(1, 2, 0)

    def _rows(
        self, contexts: Float[np.ndarray, "contexts 8"], arms: Int[np.ndarray, "contexts"]
    ) -> Float[np.ndarray, "contexts features"]:
        content = self._content[arms]
        levels = contexts[:, 1:]
        interactions = (levels[:, :, None] * content[:, None, :N_INTERACTING]).reshape(len(arms), -1)
        groups = (
            (_INTERCEPT / self._scale, contexts[:, :1]),
            (_SCALES.context, levels),
            (_SCALES.content, content),
            (_SCALES.arm, np.eye(ARMS)[arms]),
            (_SCALES.interaction, interactions),
        )
        return self._scale * np.concatenate([scale * columns for scale, columns in groups], axis=1)


def _texts(campaign: OneCampaign, kind: str) -> list[str]:
    if kind == "words":
        texts = [f"{ad.headline} {ad.body} {ad.call_to_action}".lower() for ad in campaign.ads]
        return [" ".join(re.findall(r"[a-z0-9]+", text)) for text in texts]
    return [" ".join(f"{j}:{x:.5f}" for j, x in enumerate(row)) for row in campaign.content]


class Peer(NamedTuple):
    """A contender that can be made for any campaign."""

    name: str
    make: Callable[[OneCampaign, int], Contender]


def peer(kind: Callable[..., Contender], **settings: Any) -> Peer:
    """Return a peer with its settings."""
    named = ", ".join(f"{name}={value}" for name, value in settings.items())
    return Peer(f"{kind.__name__}({named})", lambda campaign, seed: kind(campaign, seed=seed, **settings))


# The best of each grid of `tests.benchmarks.tune`; of bayesianbandits the best Thompson sampling, too.
PEERS: Final = (
    peer(VowpalWabbit, options="--squarecb --gamma_scale 1000 -l 0.05", texts="components"),
    peer(MabWiser, policy="LinTS", alpha=0.02, l2_lambda=1.0),
    peer(MabWiser, policy="LinUCB", alpha=0.02, l2_lambda=200.0),
    peer(BayesianBandits, policy="Thompson", scale=0.7),
    peer(BayesianBandits, policy="ε-greedy 0.02", scale=2.0),
)
