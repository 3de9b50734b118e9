"""A golden case of the original, translated: settings, spec, packed batches, draws. Chosen by its metadata alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from amago_ray.agent.draws import Draws
from amago_ray.config import Config
from amago_ray.config.agent import AgentConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.model import HeadConfig, ModelConfig, SequenceModelConfig, TimestepEncoderConfig
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec

POSITIONS = {
    "fixed": "sinusoidal",
    "learnable": "learned",
    "learned": "learned",
    "rope": "rotary",
    "rotary": "rotary",
}
FILTERS = {
    "binary_filter": ("binary", {"threshold": ("binary_filter_threshold", 0.0)}),
    "exp_filter": (
        "exponential",
        {
            "beta": ("exponential_filter_beta", 1.0),
            "clip_adv_low": ("exponential_filter_clip_low", None),
            "clip_adv_high": ("exponential_filter_clip_high", None),
            "clip_weights_low": ("exponential_filter_weight_low", 1e-7),
            "clip_weights_high": ("exponential_filter_weight_high", None),
        },
    ),
    "leaky_relu_filter": (
        "leaky",
        {
            "beta": ("leaky_filter_scale", 2.0),
            "tau": ("leaky_filter_offset", 0.01),
            "neg_slope": ("leaky_filter_slope", 0.05),
            "target_f0": ("leaky_filter_weight_at_zero", 0.01),
            "clip_weights_low": ("leaky_filter_weight_low", 1e-7),
            "clip_weights_high": ("leaky_filter_weight_high", 10.0),
            "add_binary": ("leaky_filter_adds_binary", True),
        },
    ),
}
# The original's draws, by ours; each is stored with a suffix for its kind.
DRAWS = {
    "agent": {"policy_action": "actor", "target_action": "target_actor"},
    "multitask": {
        "policy_action": "actor_dpg",
        "target_action": "target_actor",
        "value_action": "actor_value",
    },
}
SUFFIXES = ("eps", "action_idx", "action", "gumbel")


@dataclass(frozen=True)
class ParityCase:
    """One golden case: metadata and arrays."""

    meta: dict
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> ParityCase:
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(json.loads(path.with_suffix(".json").read_text()), arrays)

    @property
    def settings(self) -> dict:
        return self.meta["config"]

    @property
    def num_steps(self) -> int:
        return self.settings.get("multistep", 0)

    @property
    def is_multi_task(self) -> bool:
        return self.settings["kind"] == "multitask"

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays below a prefix, without it."""
        return {name[len(prefix) :]: value for name, value in self.arrays.items() if name.startswith(prefix)}

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(value) for name, value in self.group(prefix).items()}

    @cached_property
    def spec(self) -> EnvSpec:
        size = self.settings["A"]
        action = {
            "discrete": ActionSpec("discrete", (), (size,)),
            "continuous": ActionSpec("box", (size,)),
            "multibinary": ActionSpec("multi_binary", (size,)),
        }[self.settings["action"]]
        leaves = {
            name: ObservationSpec("box", tuple(leaf["shape"]), leaf["dtype"])
            for name, leaf in self.settings["obs"].items()
        }
        return EnvSpec(self.meta["name"], dict(sorted(leaves.items())), action)

    @cached_property
    def config(self) -> Config:
        settings = self.settings
        return Config(
            env=EnvConfig(id="golden"),
            model=ModelConfig(
                timestep_encoder=self._timestep_encoder(settings["tstep"]),
                sequence_model=self._sequence_model(settings["traj"]),
                policy_head=HeadConfig(
                    num_layers=settings["actor"]["n_layers"], hidden_dim=settings["actor"]["d_hidden"]
                ),
                critic=HeadConfig(num_layers=settings["critic"]["n_layers"], hidden_dim=settings["critic"]["d_hidden"]),
            ),
            agent=self._agent(settings["agent"]),
            learner=LearnerConfig(
                learning_rate=settings["lr"],
                weight_decay=settings["weight_decay"],
                max_grad_norm=settings["grad_clip"],
                warmup_steps=0,
            ),
        )

    def _timestep_encoder(self, settings: dict) -> TimestepEncoderConfig:
        if settings["type"] == "cnn":
            assert settings.get("channels_first", True)
            return TimestepEncoderConfig(
                kind="cnn",
                cnn_channels=tuple(settings["channels"]),
                cnn_kernel_sizes=tuple(settings["kernels"]),
                cnn_strides=tuple(settings["strides"]),
                image_dim=settings["img_features"],
                rl2_dim=settings["rl2_features"],
                output_dim=settings["d_output"],
            )
        assert settings["type"] == "ff"
        return TimestepEncoderConfig(
            kind="mlp",
            num_layers=settings["n_layers"],
            hidden_dim=settings["d_hidden"],
            output_dim=settings["d_output"],
            normalize_inputs=any("tstep_encoder.in_norm." in name for name in self.arrays),
        )

    def _sequence_model(self, settings: dict) -> SequenceModelConfig:
        context_length = self.settings["max_seq_len"]
        if settings["type"] == "gru":
            return SequenceModelConfig(
                kind="gru",
                context_length=context_length,
                gru_hidden_dim=settings["d_hidden"],
                num_layers=settings["n_layers"],
                d_model=settings["d_output"],
            )
        if settings["type"] == "ff":
            return SequenceModelConfig(
                kind="feed_forward",
                context_length=context_length,
                d_model=settings["d_model"],
                d_ff=settings["d_ff"],
                num_layers=settings["n_layers"],
            )
        assert settings["type"] == "transformer"
        return SequenceModelConfig(
            kind="transformer",
            context_length=context_length,
            d_model=settings["d_model"],
            num_layers=settings["n_layers"],
            num_heads=settings["n_heads"],
            d_ff=settings["d_ff"],
            dropout=0.0,
            positions=POSITIONS[settings["pos_emb"]],
            max_time_index=self.settings.get("max_time_idx"),
            sigma_reparam=any(name.endswith("qkv_projection.gamma") for name in self.arrays),
        )

    def _agent(self, settings: dict) -> AgentConfig:
        gammas = self.arrays["const/gammas"].tolist()
        actor, critic = self.settings["actor"], self.settings["critic"]
        name, fields = FILTERS[self.settings["filter"]["name"]]
        kwargs = self.settings["filter"]["kwargs"]
        assert set(kwargs) <= set(fields), kwargs
        filters = {ours: kwargs.get(theirs, default) for theirs, (ours, default) in fields.items()}
        return AgentConfig(
            kind="multi_task" if self.is_multi_task else "actor_critic",
            auxiliary_discounts=tuple(gammas[:-1]),
            acting_discount=gammas[-1],
            reward_multiplier=settings["reward_multiplier"],
            num_critics=settings["num_critics"],
            num_critics_in_target=settings["num_critics_td"],
            online_coefficient=settings["online_coeff"],
            offline_coefficient=settings["offline_coeff"],
            critic_coefficient=settings["critic_loss_weight"],
            advantage_filter="none" if settings["fake_filter"] else name,
            **filters,
            num_action_samples_in_critic_loss=settings["num_actions_for_value_in_critic_loss"],
            num_action_samples_in_policy_loss=settings["num_actions_for_value_in_actor_loss"],
            n_step=settings["n_step"],
            tau=settings["tau"],
            use_target_policy=settings["use_target_actor"],
            popart=settings["popart"],
            num_bins=critic.get("output_bins", 128),
            min_return=critic.get("min_return", -1e5),
            max_return=critic.get("max_return", 1e5),
            discrete_probability_low=actor.get("clip_prob_low", 0.001),
            discrete_probability_high=actor.get("clip_prob_high", 0.99),
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.arrays["lengths"]

    def token_mask(self, num_steps: int) -> np.ndarray:
        """(B, L): timesteps that exist."""
        return np.arange(num_steps) <= self.lengths[:, None]

    def transition_mask(self, num_steps: int) -> np.ndarray:
        """(B, T or L): timesteps that start a transition."""
        return np.arange(num_steps) < self.lengths[:, None]

    def successor_mask(self, num_steps: int) -> np.ndarray:
        """(B, L): timesteps that a transition leads to, in the order of transitions."""
        return self.token_mask(num_steps) & (np.arange(num_steps) > 0)

    def batch(self, prefix: str = "") -> SequenceBatch:
        """The padded batch, packed."""
        arrays = self.group(f"{prefix}batch/")
        tokens = self.token_mask(arrays["rl2s"].shape[1])
        moves = self.transition_mask(arrays["rews"].shape[1])
        num_sequences = len(self.lengths)
        return SequenceBatch(
            observations={name: arrays[f"obs/{name}"][tokens] for name in self.spec.observations},
            prev_action=self.to_storage(arrays["rl2s"][tokens][:, 1:]),
            prev_reward=arrays["rl2s"][tokens][:, 0],
            time_index=arrays["time_idxs"][tokens][:, 0],
            action=self.to_storage(arrays["actions"][moves]),
            reward=arrays["rews"][moves][:, 0],
            terminated=arrays["dones"][moves][:, 0],
            cu_seqlens=np.concatenate([[0], np.cumsum(self.lengths + 1)]).astype(np.int32),
            max_seqlen=int(self.lengths.max()) + 1,
            weight=np.ones(num_sequences, np.float32),
            episode_ids=np.zeros((num_sequences, 4), np.int64),
            policy_versions=np.zeros((num_sequences, 2), np.int64),
        )

    def to_storage(self, actions: np.ndarray) -> np.ndarray:
        """Rows of the original's actions in our storage form."""
        kind = self.settings["action"]
        if kind == "discrete":
            return actions.argmax(-1)
        return actions.astype(np.int8) if kind == "multibinary" else actions.astype(np.float32)

    def draws(self, prefix: str = "") -> Draws:
        """The recorded draws of the transitions."""
        arrays = self.group(f"{prefix}draws/")
        subset = arrays.pop("critic_subset")
        drawn: dict[str, torch.Tensor] = {}
        for ours, theirs in DRAWS[self.settings["kind"]].items():
            for suffix in SUFFIXES:
                value = arrays.pop(f"{theirs}_{suffix}", None)
                if value is None:
                    continue
                num_steps = value.shape[2]
                rows = (self.successor_mask if ours == "target_action" else self.transition_mask)(num_steps)
                chosen = torch.from_numpy(value[:, rows]).transpose(0, 1)
                drawn[ours] = chosen.bool() if suffix == "action" else chosen
        assert not arrays, f"unknown draws {sorted(arrays)}"
        chosen_critics = torch.from_numpy(subset[self.transition_mask(subset.shape[1])][..., 0])
        return Draws(chosen_critics, **drawn)
