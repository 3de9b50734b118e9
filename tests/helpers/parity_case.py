"""A golden case of the original, translated: settings, spec, packed batches, draws. Chosen by its metadata alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amago_ray.agent.draws import Draws
from amago_ray.config import Config
from amago_ray.config.advantage_filter import (
    BinaryFilterConfig,
    ExponentialFilterConfig,
    LeakyFilterConfig,
    NoFilterConfig,
)
from amago_ray.config.agent import ActorCriticConfig, AgentConfig, MultiTaskConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.load import checked
from amago_ray.config.model import (
    BackendName,
    CnnEncoderConfig,
    FeedForwardConfig,
    GruConfig,
    HeadConfig,
    MlpEncoderConfig,
    ModelConfig,
    SequenceModelConfig,
    TimestepEncoderConfig,
    TransformerConfig,
)
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
    "binary_filter": (BinaryFilterConfig, {"threshold": ("threshold", 0.0)}),
    "exp_filter": (
        ExponentialFilterConfig,
        {
            "beta": ("beta", 1.0),
            "clip_adv_low": ("advantage_low", None),
            "clip_adv_high": ("advantage_high", None),
            "clip_weights_low": ("weight_low", 1e-7),
            "clip_weights_high": ("weight_high", None),
        },
    ),
    "leaky_relu_filter": (
        LeakyFilterConfig,
        {
            "beta": ("scale", 2.0),
            "tau": ("offset", 0.01),
            "neg_slope": ("slope", 0.05),
            "target_f0": ("ramp_at_zero", 0.01),
            "clip_weights_low": ("ramp_low", 1e-7),
            "clip_weights_high": ("ramp_high", 10.0),
            "add_binary": ("adds_binary", True),
        },
    ),
}
# The original's draws, by ours; each is stored with a suffix for its kind.
DRAWS = {
    "agent": {"actor": "policy_action", "target_actor": "target_action"},
    "multitask": {"actor_dpg": "policy_action", "target_actor": "target_action", "actor_value": "value_action"},
}
SUFFIXES = ("eps", "action_idx", "action", "gumbel")
TABLE = "before/traj_encoder.tformer.position_embedding.embeddings.weight"


class Section:
    """Settings of one part of the original, each of which must be read: one that nobody knows is an error."""

    def __init__(self, name: str, values: dict) -> None:
        self.name = name
        self.left = dict(values)

    def take(self, key: str, *default: object) -> Any:
        """A setting's value; without default it must be there."""
        if default:
            return self.left.pop(key, *default)
        assert key in self.left, f"{self.name}: no {key}"
        return self.left.pop(key)

    def expect(self, **values: object) -> None:
        """Settings that we do not offer: where given, they must have the value that we have built in."""
        for key, value in values.items():
            found = self.left.pop(key, value)
            assert found == value, f"{self.name}.{key}: no counterpart of {found!r}"

    def finish(self) -> None:
        assert not self.left, f"{self.name}: unknown settings {self.left}"


@dataclass(frozen=True)
class ParityCase:
    """One golden case: metadata and arrays."""

    meta: dict
    arrays: dict[str, np.ndarray]
    attention_backend: BackendName = "auto"

    @classmethod
    def load(cls, path: Path, attention_backend: BackendName = "auto") -> ParityCase:
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(json.loads(path.with_suffix(".json").read_text()), arrays, attention_backend)

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

    @property
    def normalizes_inputs(self) -> bool:
        """Whether the encoder normalises its inputs; the original keeps their statistics even where it does not."""
        tstep = self.settings["tstep"]
        return tstep["type"] == "ff" and tstep.get("normalize_inputs", True)

    @cached_property
    def spec(self) -> EnvSpec:
        size = self.settings["A"]
        action = {
            "discrete": ActionSpec("discrete", (), (size,)),
            "continuous": ActionSpec("box", (size,)),
            "multibinary": ActionSpec("multi_binary", (size,)),
        }[self.settings["action"]]
        leaves = {
            name: ObservationSpec("box", self._stored_shape(name, tuple(leaf["shape"])), leaf["dtype"])
            for name, leaf in self.settings["obs"].items()
        }
        return EnvSpec(self.meta["name"], dict(sorted(leaves.items())), action)

    @cached_property
    def config(self) -> Config:
        settings = self.settings
        # Other keys beside the sections say how arrays were made, and every array is compared.
        sections = {key for key, value in settings.items() if isinstance(value, dict)}
        assert sections <= {"obs", "tstep", "traj", "actor", "critic", "agent", "filter"}, sections
        actor, critic = Section("actor", settings["actor"]), Section("critic", settings["critic"])
        config = Config(
            env=EnvConfig(id="golden"),
            model=ModelConfig(
                timestep_encoder=self._timestep_encoder(Section("tstep", settings["tstep"])),
                sequence_model=self._sequence_model(Section("traj", settings["traj"])),
                policy_head=_head(actor),
                critic=_head(critic),
            ),
            agent=self._agent(Section("agent", settings["agent"]), actor, critic),
            learner=LearnerConfig(
                learning_rate=settings["lr"],
                weight_decay=settings["weight_decay"],
                max_grad_norm=settings["grad_clip"],
                warmup_steps=0,
            ),
        )
        return checked(config)

    def _timestep_encoder(self, settings: Section) -> TimestepEncoderConfig:
        kind = settings.take("type")
        settings.expect(out_norm="layer", activation="leaky_relu", hide_rl2s=False, hide_rewards=False)
        if kind == "cnn":
            settings.expect(drqv2_aug=False, cnn_type="NatureishCNN")
            settings.take("channels_first", True)
            config: TimestepEncoderConfig = CnnEncoderConfig(
                cnn_channels=tuple(settings.take("channels")),
                cnn_kernel_sizes=tuple(settings.take("kernels")),
                cnn_strides=tuple(settings.take("strides")),
                image_dim=settings.take("img_features"),
                rl2_dim=settings.take("rl2_features"),
                output_dim=settings.take("d_output"),
                # The original's CNN reads one image and nothing beside it.
                observation_keys=(settings.take("obs_key", "observation"),),
            )
        else:
            assert kind == "ff", kind
            settings.expect(norm=None, auto_scale=False)
            keys = settings.take("specify_obs_keys", None)
            config = MlpEncoderConfig(
                num_layers=settings.take("n_layers"),
                hidden_dim=settings.take("d_hidden"),
                output_dim=settings.take("d_output"),
                normalize_inputs=settings.take("normalize_inputs", True),
                observation_keys=None if keys is None else tuple(keys),
            )
        settings.finish()
        return config

    def _sequence_model(self, settings: Section) -> SequenceModelConfig:
        context_length = self.settings["max_seq_len"]
        kind = settings.take("type")
        settings.expect(norm="layer", activation="leaky_relu", dropout=0.0)
        if kind == "gru":
            config: SequenceModelConfig = GruConfig(
                context_length=context_length,
                gru_hidden_dim=settings.take("d_hidden"),
                num_layers=settings.take("n_layers"),
                d_model=settings.take("d_output"),
            )
        elif kind == "ff":
            config = FeedForwardConfig(
                context_length=context_length,
                d_model=settings.take("d_model"),
                d_ff=settings.take("d_ff"),
                num_layers=settings.take("n_layers"),
            )
        else:
            assert kind == "transformer", kind
            settings.expect(dropout_ff=0.0, dropout_emb=0.0, dropout_attn=0.0, dropout_qkv=0.0, causal=True)
            settings.expect(normformer_norms=True, head_scaling=True, attention_type="VanillaAttention")
            positions = POSITIONS[settings.take("pos_emb")]
            has_sigma = any(name.endswith("qkv_projection.gamma") for name in self.arrays)
            settings.expect(sigma_reparam=has_sigma)
            config = TransformerConfig(
                context_length=context_length,
                d_model=settings.take("d_model"),
                num_layers=settings.take("n_layers"),
                num_heads=settings.take("n_heads"),
                d_ff=settings.take("d_ff"),
                dropout=0.0,
                positions=positions,
                attention_backend=self.attention_backend,
                max_time_index=len(self.arrays[TABLE]) if positions == "learned" else None,
                sigma_reparam=has_sigma,
            )
        settings.finish()
        return config

    def _agent(self, settings: Section, actor: Section, critic: Section) -> AgentConfig:
        gammas = self.arrays["const/gammas"].tolist()
        assert np.isclose(gammas[-1], settings.take("gamma"))
        assert (len(gammas) > 1) == settings.take("use_multigamma", True)
        kind, fields = FILTERS[self.settings["filter"]["name"]]
        kwargs = self.settings["filter"]["kwargs"]
        assert set(kwargs) <= set(fields), kwargs
        advantage_filter = kind(**{ours: kwargs.get(theirs, default) for theirs, (ours, default) in fields.items()})
        bins = {}
        if self.is_multi_task:
            critic.expect(use_symlog=True, sigma=0.75)
            bins = {
                "num_bins": critic.take("output_bins", 128),
                "min_return": critic.take("min_return", -1e5),
                "max_return": critic.take("max_return", 1e5),
                "labels": {"twohot": "two_hot", "hlgauss": "hl_gauss"}[critic.take("label_type", "twohot")],
            }
        config = {"multitask": MultiTaskConfig, "agent": ActorCriticConfig}[self.settings["kind"]](
            auxiliary_discounts=tuple(gammas[:-1]),
            acting_discount=gammas[-1],
            reward_multiplier=settings.take("reward_multiplier"),
            num_critics=settings.take("num_critics"),
            num_critics_in_target=settings.take("num_critics_td"),
            online_coefficient=settings.take("online_coeff"),
            offline_coefficient=settings.take("offline_coeff"),
            critic_coefficient=settings.take("critic_loss_weight"),
            advantage_filter=NoFilterConfig() if settings.take("fake_filter", False) else advantage_filter,
            num_action_samples_in_critic_loss=settings.take("num_actions_for_value_in_critic_loss"),
            num_action_samples_in_policy_loss=settings.take("num_actions_for_value_in_actor_loss"),
            n_step=settings.take("n_step", 1),
            tau=settings.take("tau"),
            use_target_policy=settings.take("use_target_actor", True),
            popart=settings.take("popart", True),
            **bins,
            discrete_probability_low=actor.take("clip_prob_low", 0.001),
            discrete_probability_high=actor.take("clip_prob_high", 0.99),
        )
        for section in (settings, actor, critic):
            section.finish()
        return config

    def lengths_of(self, prefix: str) -> np.ndarray:
        """True numbers of transitions of a step's batch."""
        return self.arrays.get(f"{prefix}lengths", self.lengths)

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.arrays["lengths"]

    def token_mask(self, num_steps: int) -> np.ndarray:
        """(B, L): rows that exist."""
        return np.arange(num_steps) <= self.lengths[:, None]

    def transition_mask(self, num_steps: int) -> np.ndarray:
        """(B, T or L): rows that start a transition."""
        return np.arange(num_steps) < self.lengths[:, None]

    def successor_mask(self, num_steps: int) -> np.ndarray:
        """(B, L): rows that a transition leads to, in the order of transitions."""
        return self.token_mask(num_steps) & (np.arange(num_steps) > 0)

    def batch(self, prefix: str = "") -> SequenceBatch:
        """The padded batch, packed."""
        arrays = self.group(f"{prefix}batch/")
        lengths = self.lengths_of(prefix)
        tokens = np.arange(arrays["rl2s"].shape[1]) <= lengths[:, None]
        moves = np.arange(arrays["rews"].shape[1]) < lengths[:, None]
        num_sequences = len(lengths)
        return SequenceBatch(
            observations={
                name: self.stored_leaf(name, arrays[f"obs/{name}"][tokens]) for name in self.spec.observations
            },
            prev_action=self.to_storage(arrays["rl2s"][tokens][:, 1:]),
            prev_reward=arrays["rl2s"][tokens][:, 0],
            time_index=arrays["time_idxs"][tokens][:, 0],
            action=self.to_storage(arrays["actions"][moves]),
            reward=arrays["rews"][moves][:, 0],
            terminated=arrays["dones"][moves][:, 0],
            cu_seqlens=np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int32),
            max_seqlen=int(lengths.max()) + 1,
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

    def stored_leaf(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of an observation leaf in our storage form: images channels first."""
        return np.ascontiguousarray(np.moveaxis(rows, -1, 1)) if self._is_channels_last(name) else rows

    def _stored_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[-1], *shape[:-1]) if self._is_channels_last(name) else shape

    def _is_channels_last(self, name: str) -> bool:
        tstep = self.settings["tstep"]
        is_image = tstep["type"] == "cnn" and name == tstep.get("obs_key", "observation")
        return is_image and not tstep.get("channels_first", True)

    def draws(self, prefix: str = "") -> Draws:
        """The recorded draws of the transitions."""
        arrays = self.group(f"{prefix}draws/")
        lengths = self.lengths_of(prefix)
        num_draws = (int(lengths.sum()), self.config.agent.num_critics_in_target, len(self.config.agent.discounts))
        subset = arrays.pop("critic_subset", None)
        if subset is None:
            assert not self.config.agent.trains_critics
            chosen_critics = torch.zeros(num_draws, dtype=torch.int64)
        else:
            moves = np.arange(subset.shape[1]) < lengths[:, None]
            chosen_critics = torch.from_numpy(subset[moves][..., 0])
        drawn: dict[str, torch.Tensor] = {}
        for ours, name in self._roles(list(arrays)).items():
            value = arrays.pop(name)
            steps = np.arange(value.shape[2])
            rows = (steps > 0) & (steps <= lengths[:, None]) if ours == "target_action" else steps < lengths[:, None]
            chosen = torch.from_numpy(value[:, rows]).transpose(0, 1)
            drawn[ours] = chosen.bool() if _suffix(name) == "action" else chosen
        assert not arrays, f"unknown draws {sorted(arrays)}"
        return Draws(chosen_critics, **drawn)

    def _roles(self, names: list[str]) -> dict[str, str]:
        """Our draws by the names of the recorded ones: known names, else the order in which they were consumed."""
        known = DRAWS[self.settings["kind"]]
        stems = [name.removesuffix(f"_{_suffix(name)}") for name in names]
        if set(stems) <= set(known):
            return {known[stem]: name for stem, name in zip(stems, names, strict=True)}
        in_order = [entry["name"].rpartition("/")[2] for entry in self.meta["draws_in_order"]]
        ordered = sorted(names, key=in_order.index)
        agent = self.config.agent
        if self.is_multi_task:
            has_value = agent.offline_coefficient > 0 and agent.filters_by_advantage
            wanted = ["target_action"] * agent.trains_critics + ["value_action"] * has_value
            wanted += ["policy_action"] * (agent.online_coefficient > 0)
        else:
            wanted = ["policy_action"] + ["target_action"] * agent.trains_critics
        return dict(zip(wanted, ordered, strict=True))


def _head(settings: Section) -> HeadConfig:
    settings.expect(activation="leaky_relu", dropout_p=0.0)
    return HeadConfig(num_layers=settings.take("n_layers"), hidden_dim=settings.take("d_hidden"))


def _suffix(name: str) -> str:
    (suffix,) = [each for each in SUFFIXES if name.endswith(f"_{each}")]
    return suffix
