"""Policy distributions: what the raw parameters of the policy head mean, one family per kind of action.

A family works on *moments*, computed once from the parameters: probabilities, or mean and standard deviation.
Randomness comes from outside: training passes draws (`draw_noise`), acting passes a generator (`act`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from amago_ray.config.agent import AgentConfig, SpaceDistributionConfig
from amago_ray.config.kinds import Registry
from amago_ray.data.specs import ActionSpec
from amago_ray.nets.custom import checked

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

Moments = tuple[Tensor, ...]
"""(probabilities,) or (mean, standard deviation), each `[..., A]`."""

_WHERE = "agent.policy_distribution.kind"
_MIN_PROBABILITY = 1e-12
_CPU_LANES = 16
"""Float32 numbers in the widest vector of a CPU."""


class PolicyDistribution(ABC):
    """A family of distributions over actions. Custom ones are made by `attr(config, action, agent, **config.kwargs)`.

    config: `CustomDistributionConfig`; action: `ActionSpec`; agent: `AgentConfig`.
    Actions come in two forms. *Storage* form is that of `ActionSpec` (an index, indices, bits, a box).
    *Features* `[..., A]` are what critics read: one-hot where discrete, else floats.
    """

    num_params: int
    """P, raw parameters of one distribution."""
    num_features: int
    """A, width of an action's features."""
    is_exact: bool = False
    """Whether expectations over actions are sums over all of them instead of samples; moments are then
    `(probabilities [..., A],)`."""

    @abstractmethod
    def moments(self, params: Float[Tensor, "*R P"], mask: Bool[Tensor, "*R P"] | None = None) -> Moments:
        """Moments of `params [..., P]`; `mask [..., P]` is True where an action is allowed (discrete kinds only)."""

    @abstractmethod
    def log_prob(self, moments: Moments, action: Shaped[Tensor, " ..."]) -> Float[Tensor, "*R"]:
        """Log-probability `[...]` of an action in storage form, whose leading axes broadcast against the moments'."""

    @abstractmethod
    def encode(self, action: Shaped[Tensor, " ..."], mask: Bool[Tensor, "*R P"] | None = None) -> Float[Tensor, "*R A"]:
        """Features `[..., A]` of an action in storage form, as critics receive actions of the replay."""

    @abstractmethod
    def draw_noise(
        self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool
    ) -> Shaped[Tensor, " ..."]:
        """Noise for `sample` or, where `reparametrized`, for `rsample`, of distributions of leading axes `shape`."""

    @abstractmethod
    def rsample(self, moments: Moments, noise: Shaped[Tensor, " ..."]) -> Float[Tensor, "*R A"]:
        """Features `[..., A]` of sampled actions, with a gradient to the moments."""

    def sample(self, moments: Moments, noise: Shaped[Tensor, " ..."]) -> Float[Tensor, "*R A"]:
        """As `rsample`, without gradient. Integer or bool noise is the outcome itself."""
        return self.rsample(tuple(moment.detach() for moment in moments), noise)

    @abstractmethod
    def act(
        self,
        params: Float[Tensor, "E P"],
        mask: Bool[Tensor, "E P"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "E ..."]:
        """Actions in storage form of `params [E, P]`: sampled with the generator, the most likely ones without."""


class DiscreteDistribution(PolicyDistribution):
    """One of A actions: softmax, clamped to [low, high], renormalised.

    Source: docs/algorithm.md §4.1; the clamp keeps exploration and log-probabilities bounded.
    """

    is_exact = True

    def __init__(self, num_actions: int, low: float, high: float) -> None:
        self.num_params = num_actions
        self.num_features = num_actions
        self._low = low
        self._high = high

    @override
    def moments(self, params: Tensor, mask: Tensor | None = None) -> Moments:
        clamped = self._clamped_probabilities(params, mask)
        return (clamped / clamped.sum(-1, keepdim=True),)

    @override
    def log_prob(self, moments: Moments, action: Tensor) -> Tensor:
        (probs,) = moments
        index = action.unsqueeze(-1).expand(*probs.shape[:-1], 1)
        return probs.gather(-1, index).squeeze(-1).clamp_min(_MIN_PROBABILITY).log()

    @override
    def encode(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Softened one-hot: clamped to [low, high] and renormalised, as the policy's own probabilities are."""
        features = functional.one_hot(action, self.num_features).to(torch.float32).clamp_(self._low, self._high)
        if mask is not None:
            features *= _some_allowed(mask)
        return features.div_(features.sum(-1, keepdim=True))

    @override
    def draw_noise(self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool) -> Tensor:
        if reparametrized:
            return _gumbel((*shape, self.num_features), generator)
        return torch.rand(tuple(shape), generator=generator, device=generator.device)

    @override
    def sample(self, moments: Moments, noise: Tensor) -> Tensor:
        (probs,) = moments
        probs = probs.detach()
        index = noise if noise.dtype == torch.int64 else inverse_cdf(probs, noise)
        return functional.one_hot(index, self.num_features).to(probs.dtype)

    @override
    def rsample(self, moments: Moments, noise: Tensor) -> Tensor:
        return _straight_through(moments[0], noise)

    @override
    def act(self, params: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        if generator is None:
            return _mask_logits(params, mask).argmax(-1)
        probs = self._clamped_probabilities(params, mask)
        noise = torch.rand(params.shape[:-1], generator=generator, device=params.device)
        return inverse_cdf(probs, noise)

    def _clamped_probabilities(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """Clamped but not renormalised; exactly 0 where masked."""
        probs = softmax(_mask_logits(params, mask)).clamp(self._low, self._high)
        return probs if mask is None else probs * _some_allowed(mask)


class MultiDiscreteDistribution(PolicyDistribution):
    """Several independent choices: a product of `DiscreteDistribution`s, their features and masks side by side."""

    def __init__(self, num_categories: Sequence[int], low: float, high: float) -> None:
        self._sizes = list(num_categories)
        self._parts = [DiscreteDistribution(size, low, high) for size in num_categories]
        self.num_params = sum(self._sizes)
        self.num_features = self.num_params

    @override
    def moments(self, params: Tensor, mask: Tensor | None = None) -> Moments:
        parts = zip(self._parts, self._split(params), self._split_mask(mask), strict=True)
        return (torch.cat([part.moments(p, m)[0] for part, p, m in parts], -1),)

    @override
    def log_prob(self, moments: Moments, action: Tensor) -> Tensor:
        parts = zip(self._parts, self._split(moments[0]), action.unbind(-1), strict=True)
        return torch.stack([part.log_prob((p,), a) for part, p, a in parts]).sum(0)

    @override
    def encode(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = zip(action.unbind(-1), self._sizes, strict=True)
        return torch.cat([functional.one_hot(index, size) for index, size in parts], -1).to(torch.float32)

    @override
    def draw_noise(self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool) -> Tensor:
        if reparametrized:
            return _gumbel((*shape, self.num_features), generator)
        return torch.rand((*shape, len(self._sizes)), generator=generator, device=generator.device)

    @override
    def sample(self, moments: Moments, noise: Tensor) -> Tensor:
        parts = zip(self._parts, self._split(moments[0]), noise.unbind(-1), strict=True)
        return torch.cat([part.sample((p,), n) for part, p, n in parts], -1)

    @override
    def rsample(self, moments: Moments, noise: Tensor) -> Tensor:
        parts = zip(self._split(moments[0]), self._split(noise), strict=True)
        return torch.cat([_straight_through(p, n) for p, n in parts], -1)

    @override
    def act(self, params: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        parts = zip(self._parts, self._split(params), self._split_mask(mask), strict=True)
        return torch.stack([part.act(p, m, generator) for part, p, m in parts], -1)

    def _split(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Each part's share of `[..., P]`."""
        return torch.split(columns, self._sizes, -1)

    def _split_mask(self, mask: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self._sizes) if mask is None else self._split(mask)


class MultiBinaryDistribution(PolicyDistribution):
    """Independent bits.

    The log-probability is the mean over bits, as in the original.
    Differs: the greedy action is p > 0.5 (the original's is always zero); `rsample` lets a gradient through the
    sampled bits straight to their probabilities (the original has none).
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self.num_features = math.prod(shape)
        self.num_params = self.num_features

    @override
    def moments(self, params: Tensor, mask: Tensor | None = None) -> Moments:
        return (params.sigmoid(),)

    @override
    def log_prob(self, moments: Moments, action: Tensor) -> Tensor:
        (probs,) = moments
        bits = self.encode(action)
        chosen = bits * probs + (1 - bits) * (1 - probs)
        return chosen.clamp_min(torch.finfo(probs.dtype).eps).log().mean(-1)

    @override
    def encode(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return _flat(action, self._shape).to(torch.float32)

    @override
    def draw_noise(self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool) -> Tensor:
        return torch.rand((*shape, self.num_features), generator=generator, device=generator.device)

    @override
    def sample(self, moments: Moments, noise: Tensor) -> Tensor:
        probs = moments[0].detach()
        outcome = noise if noise.dtype == torch.bool else noise < probs
        return outcome.to(probs.dtype)

    @override
    def rsample(self, moments: Moments, noise: Tensor) -> Tensor:
        (probs,) = moments
        return self.sample(moments, noise) + (probs - probs.detach())

    @override
    def act(self, params: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        threshold: Tensor | float = 0.5
        if generator is not None:
            threshold = torch.rand(params.shape, generator=generator, device=params.device)
        return (params.sigmoid() > threshold).to(torch.int8).view(*params.shape[:-1], *self._shape)


class TanhNormalDistribution(PolicyDistribution):
    """A box in [-1, 1]: tanh of a diagonal Gaussian whose log standard deviation lies in (-5, 2).

    Source: docs/algorithm.md §4.2.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self.num_features = math.prod(shape)
        self.num_params = 2 * self.num_features

    @override
    def moments(self, params: Tensor, mask: Tensor | None = None) -> Moments:
        mean, raw = params.chunk(2, -1)
        return mean, torch.exp(-5.0 + 3.5 * (raw.tanh() + 1.0))

    @override
    def log_prob(self, moments: Moments, action: Tensor) -> Tensor:
        mean, std = moments
        pre_tanh = self.encode(action).clamp(-0.99, 0.99).atanh()
        normal = -0.5 * ((pre_tanh - mean) / std) ** 2 - std.log() - 0.5 * math.log(2.0 * math.pi)
        log_slope = 2.0 * (math.log(2.0) - pre_tanh - functional.softplus(-2.0 * pre_tanh))
        return (normal - log_slope).sum(-1)

    @override
    def encode(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return _flat(action, self._shape).clamp(-1.0, 1.0)

    @override
    def draw_noise(self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool) -> Tensor:
        return torch.randn((*shape, self.num_features), generator=generator, device=generator.device)

    @override
    def rsample(self, moments: Moments, noise: Tensor) -> Tensor:
        mean, std = moments
        return torch.tanh(mean + std * noise)

    @override
    def act(self, params: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        mean, std = self.moments(params)
        if generator is not None:
            mean = mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean.tanh().to(torch.float32).view(*params.shape[:-1], *self._shape)


def _of_space(config: SpaceDistributionConfig, action: ActionSpec, agent: AgentConfig) -> PolicyDistribution:
    low, high = agent.discrete_probability_low, agent.discrete_probability_high
    match action.kind:
        case "discrete":
            return DiscreteDistribution(action.num_categories[0], low, high)
        case "multi_discrete":
            return MultiDiscreteDistribution(action.num_categories, low, high)
        case "multi_binary":
            return MultiBinaryDistribution(action.shape)
        case "box":
            return TanhNormalDistribution(action.shape)


POLICY_DISTRIBUTIONS: Registry[PolicyDistribution] = Registry(_WHERE, {SpaceDistributionConfig: _of_space})


def make_distribution(action: ActionSpec, config: AgentConfig) -> PolicyDistribution:
    """The family that the settings ask for, over actions of a spec.

    Raises:
        ConfigError: one of the user's own that cannot be made, or is none.
    """
    asked = config.policy_distribution
    made = POLICY_DISTRIBUTIONS.make(asked, action, config)
    return checked(_WHERE, asked.kind, made, PolicyDistribution, "num_params")  # type: ignore[type-abstract]


def _flat(action: Tensor, shape: Sequence[int]) -> Tensor:
    """Actions `[..., *shape]` as `[..., A]`; a shape without axes is one number."""
    return action.reshape(*action.shape[: action.dim() - len(shape)], math.prod(shape))


def _some_allowed(mask: Tensor) -> Tensor:
    """The mask, with rows that allow nothing (rows that only fill a static shape) allowing everything."""
    return mask | ~mask.any(-1, keepdim=True)


def _mask_logits(params: Tensor, mask: Tensor | None) -> Tensor:
    return params if mask is None else params.masked_fill(~_some_allowed(mask), -torch.inf)


def softmax(logits: Float[Tensor, "*R A"]) -> Float[Tensor, "*R A"]:
    """Probabilities over the last axis."""
    if logits.device.type != "cpu" or logits.shape[-1] >= _CPU_LANES:
        return logits.softmax(-1)
    # Over fewer numbers than a vector has it is five times slower than across rows.
    return logits.movedim(-1, 0).softmax(0).movedim(0, -1).contiguous()


def inverse_cdf(probs: Float[Tensor, "*R A"], uniform: Float[Tensor, "*R"]) -> Int[Tensor, "*R"]:
    """Index `[...]` drawn from `probs [..., A]`, which need not sum to 1, by `uniform [...]` in [0, 1).

    The threshold lies in (0, total], so that an entry of probability 0 is never drawn, not even by rounding.
    """
    cumulative = probs.cumsum(-1)
    threshold = (1.0 - uniform).unsqueeze(-1) * cumulative[..., -1:]
    return (cumulative < threshold).sum(-1)


def _gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return -torch.empty(shape, device=generator.device).exponential_(generator=generator).log()


def _straight_through(probs: Tensor, gumbel: Tensor, temperature: float = 0.5) -> Tensor:
    """One-hot samples whose gradient is that of the Gumbel-softmax.

    Source: docs/algorithm.md §7.3; Jang et al. 2017 (arXiv 1611.01144), section 2.2.
    """
    allowed = probs > 0
    logits = probs.clamp_min(_MIN_PROBABILITY).log().masked_fill(~allowed, -torch.inf)
    soft = softmax((logits + gumbel) / temperature)
    hard = functional.one_hot(soft.argmax(-1), probs.shape[-1]).to(soft.dtype)
    return hard - soft.detach() + soft
