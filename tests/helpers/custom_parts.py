"""One part of each kind that a user may bring, as small as its protocol allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amago_ray.agent import ValueRegression
from amago_ray.config.advantage_filter import CustomFilterConfig
from amago_ray.config.agent import AgentConfig, CustomAgentConfig, CustomDistributionConfig
from amago_ray.config.exploration import CustomExplorationConfig
from amago_ray.config.model import CustomEncoderConfig, CustomSequenceModelConfig
from amago_ray.config.relabel import CustomRelabelConfig
from amago_ray.data.episode import Episode
from amago_ray.data.specs import ActionSpec, EnvSpec
from amago_ray.nets import PolicyDistribution, SequenceLayout, SequenceModel, TimestepEncoder, TokenColumns


class Linear(TimestepEncoder):
    """One linear layer on one observation leaf, the previous reward and the time."""

    def __init__(self, config: CustomEncoderConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.leaf = "observation"
        self.output_dim = config.output_dim
        self.linear = nn.Linear(spec.observations[self.leaf].num_features + 2, config.output_dim)

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        leaf = tokens.observations[self.leaf].flatten(1).float()
        features = [leaf, tokens.prev_reward[:, None], tokens.time_index[:, None] / 10]
        return self.linear(torch.cat(features, -1))


class DecayingSum(SequenceModel):
    """A sum over the past of its sequence that decays with every step."""

    def __init__(
        self, config: CustomSequenceModelConfig, input_dim: int, horizon: int | None, *, decay: float = 0.5
    ) -> None:
        super().__init__()
        self.output_dim, self.decay = config.d_model, decay
        self.linear = nn.Linear(input_dim, config.d_model)

    def sums(self, x: Tensor, layout: SequenceLayout) -> Tensor:
        rows = torch.arange(layout.num_tokens)
        age = rows[:, None] - rows
        same = layout.sequence_index[:, None] == layout.sequence_index
        return torch.where(same & (age >= 0), self.decay ** age.clamp_min(0).float(), 0.0) @ x

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return self.linear(self.sums(x, layout))


class RunningSum(DecayingSum):
    """The same, acting with the sum itself instead of a window of the past."""

    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> RunningSumDecoder:
        return RunningSumDecoder(self.eval())


@dataclass
class Sums:
    """The state of E episodes: `[E, D_enc]`."""

    values: Tensor

    def reset(self, indices: np.ndarray) -> None:
        self.values[indices] = 0


class RunningSumDecoder:
    """A `Decoder`: one row of every episode at a time."""

    def __init__(self, model: RunningSum) -> None:
        self.model = model

    def initial_state(self, batch_size: int) -> Sums:
        return Sums(torch.zeros(batch_size, self.model.linear.in_features))

    def step(self, x: Tensor, time_index: Tensor, state: Sums) -> Tensor:
        state.values = state.values * self.model.decay + x
        return self.model.linear(state.values)

    def rebuild(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: np.ndarray, state: Sums) -> None:
        last = layout.cu_seqlens[1:].long() - 1
        state.values[indices] = self.model.sums(x, layout)[last]


class Kumaraswamy(PolicyDistribution):
    """A box in [-1, 1] by Kumaraswamy's distribution, whose samples are a formula of uniform noise."""

    def __init__(
        self, config: CustomDistributionConfig, action: ActionSpec, agent: AgentConfig, *, least: float = 0.1
    ) -> None:
        self.shape, self.least = action.shape, least
        self.num_features = action.num_features
        self.num_params = 2 * action.num_features

    def moments(self, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        a, b = (self.least + functional.softplus(params)).chunk(2, -1)
        return a, b

    def log_prob(self, moments: tuple[Tensor, ...], action: Tensor) -> Tensor:
        a, b = moments
        x = (self.encode(action).clamp(-0.99, 0.99) + 1) / 2
        return (a.log() + b.log() + (a - 1) * x.log() + (b - 1) * torch.log1p(-(x**a)) - math.log(2)).sum(-1)

    def encode(self, action: Tensor, mask: Tensor | None = None) -> Tensor:
        return action.reshape(*action.shape[: action.dim() - len(self.shape)], self.num_features)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator, *, reparametrized: bool) -> Tensor:
        return torch.rand((*shape, self.num_features), generator=generator, device=generator.device)

    def rsample(self, moments: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        a, b = moments
        return 2 * (1 - (1 - noise.clamp(1e-6, 1 - 1e-6)) ** (1 / b)) ** (1 / a) - 1

    def act(self, params: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.tensor(0.5)
        if generator is not None:
            noise = self.draw_noise(params.shape[:-1], generator, reparametrized=True)
        return self.rsample(self.moments(params), noise).view(-1, *self.shape)


class Huber(ValueRegression):
    """Critics' errors count by their size, not by its square, where they are large."""

    def __init__(self, config: CustomAgentConfig, distribution: PolicyDistribution, *, width: float = 1.0) -> None:
        super().__init__(config, distribution)
        self.width = width

    def critic_entries(self, values: Tensor, targets: Tensor) -> Tensor:
        return 2 * functional.huber_loss(values, targets.expand_as(values), reduction="none", delta=self.width)


class Sigmoid:
    """Imitates by a smooth step of the advantage."""

    def __init__(self, config: CustomFilterConfig, *, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, advantage: Tensor) -> Tensor:
        return torch.sigmoid(advantage / self.temperature)


class Discounted:
    """Rewards at a share of their worth, whenever an episode is drawn."""

    watches_storage = False

    def __init__(self, config: CustomRelabelConfig, spec: EnvSpec, *, share: float = 0.5) -> None:
        self.share = share

    def observe(self, episode: Episode) -> None:
        """Not called: `watches_storage` is False."""

    def forget(self, episode: Episode) -> None:
        """Not called: `watches_storage` is False."""

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        return replace(episode, rewards=episode.rewards * self.share)


class FirstAction:
    """The first action instead of the policy's, in a share of the episodes."""

    def __init__(self, config: CustomExplorationConfig, spec: EnvSpec, num_envs: int, *, share: float = 1 / 3) -> None:
        self.share = share
        self.explores = np.zeros(num_envs, np.bool_)

    def begin(self, indices: np.ndarray, rng: np.random.Generator) -> None:
        self.explores[indices] = rng.random(len(indices)) < self.share

    def apply(self, actions, time_index, env_steps, action_mask, rng) -> np.ndarray:
        explores = self.explores.reshape(-1, *[1] * (actions.ndim - 1))
        return np.where(explores, np.zeros_like(actions), actions)
