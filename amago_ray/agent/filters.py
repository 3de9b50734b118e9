"""Advantage filters: how strongly a transition is imitated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.config.agent import AgentConfig


def filter_weight(advantage: Tensor, config: AgentConfig) -> Tensor:
    """f(A), of the same shape as `advantage`."""
    match config.advantage_filter:
        case "binary":
            return (advantage > config.binary_filter_threshold).to(advantage.dtype)
        case "exponential":
            return _exponential(advantage, config)
        case "leaky":
            return _leaky(advantage, config)
        case "none":
            return torch.ones_like(advantage)


def _exponential(advantage: Tensor, config: AgentConfig) -> Tensor:
    """exp(beta * A), advantage and weight clipped.

    Source: Peng et al. 2019 (arXiv 1910.00177), equation 9, with clipping.
    """
    clipped = _clip(advantage, config.exponential_filter_clip_low, config.exponential_filter_clip_high)
    weight = torch.exp(config.exponential_filter_beta * clipped)
    return _clip(weight, config.exponential_filter_weight_low, config.exponential_filter_weight_high)


def _leaky(advantage: Tensor, config: AgentConfig) -> Tensor:
    """A leaky ramp that passes through `leaky_filter_weight_at_zero` at A = 0, plus the binary filter."""
    scale, offset, slope = config.leaky_filter_scale, config.leaky_filter_offset, config.leaky_filter_slope
    base = config.leaky_filter_weight_at_zero + slope * offset / scale
    ramp = base + functional.leaky_relu((advantage - offset) / scale, slope)
    ramp = _clip(ramp, config.leaky_filter_weight_low, config.leaky_filter_weight_high)
    return ramp + (advantage > 0) if config.leaky_filter_adds_binary else ramp


def _clip(x: Tensor, low: float | None, high: float | None) -> Tensor:
    return x if low is None and high is None else x.clamp(low, high)
