"""Weights of AMAGO v3: their names and layouts, translated to ours and back.

Names that the original has and we do not: `maximized_critics.*`, a copy of its critics that lags one update (see
`value_regression`), and `tstep_encoder.in_norm.*` where inputs are not normalised: it keeps the statistics of a
normalisation that is switched off. Everything else must match one to one.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.errors import CheckpointError
from amago_ray.nets.sequence.transformer import SelfAttention, channel_major_rows, head_major_rows

LAGGING_PREFIX = "maximized_critics."
"""Names of the original's copy of its critics that lags one update."""

INPUT_NORM_PREFIX = "tstep_encoder.in_norm."
"""Names of the original's input normalisation, which it has even where it does not use it."""

_TOP_LEVEL = {
    "timestep_encoder": "tstep_encoder",
    "sequence_model": "traj_encoder",
    "policy_head": "actor",
    "target_policy_head": "target_actor",
    "critics": "critics",
    "target_critics": "target_critics",
    "popart": "popart",
}

# Patterns of our names below the top level, and the original's. MLPs and critics, whose first and last layers have
# names of their own there, are translated by `_mlp_name`.
_TIMESTEP_ENCODER = (
    (r"input_norm\.mean", "in_norm.mu"),
    (r"input_norm\.mean_square", "in_norm.nu"),
    (r"input_norm\.num_updates", "in_norm._t"),
    (r"output_norm\.(\w+)", r"out_norm.norm.\1"),
    (r"images\.0\.output\.(\w+)", r"img_features.\1"),
    (r"(?:rl2)\.(\w+)", r"rl2_features.\1"),
    (r"(merge\.\w+)", r"\1"),
)
_TRANSFORMER = (
    (r"embed\.(\w+)", r"tformer.inp.\1"),
    (r"positions\.table", "tformer.position_embedding.embeddings.weight"),
    (r"output_norm\.(\w+)", r"tformer.norm.norm.\1"),
    (r"layers\.(\d+)\.attention\.head_scale", r"tformer.layers.\1.attention_layer.head_scaler"),
    (r"layers\.(\d+)\.attention\.qkv\.(\w+)", r"tformer.layers.\1.attention_layer.qkv_projection.\2"),
    (r"layers\.(\d+)\.attention\.output\.(\w+)", r"tformer.layers.\1.attention_layer.out_projection.\2"),
    (r"layers\.(\d+)\.expand\.(\w+)", r"tformer.layers.\1.ff1.\2"),
    (r"layers\.(\d+)\.contract\.(\w+)", r"tformer.layers.\1.ff2.\2"),
    (r"layers\.(\d+)\.attention_norm\.(\w+)", r"tformer.layers.\1.norm1.norm.\2"),
    (r"layers\.(\d+)\.attention_output_norm\.(\w+)", r"tformer.layers.\1.norm2.norm.\2"),
    (r"layers\.(\d+)\.feed_forward_norm\.(\w+)", r"tformer.layers.\1.norm3.norm.\2"),
    (r"layers\.(\d+)\.hidden_norm\.(\w+)", r"tformer.layers.\1.norm4.norm.\2"),
)
_RECURRENT = (
    (r"(rnn\.\w+)", r"\1"),
    (r"output\.(\w+)", r"out.\1"),
    (r"output_norm\.(\w+)", r"out_norm.norm.\1"),
)
_FEED_FORWARD = (
    (r"embed\.(\w+)", r"traj_emb.\1"),
    (r"blocks\.(\d+)\.expand\.(\w+)", r"traj_blocks.\1.ff1.\2"),
    (r"blocks\.(\d+)\.contract\.(\w+)", r"traj_blocks.\1.ff2.\2"),
    (r"output\.(\w+)", r"traj_last.\1"),
    (r"output_norm\.(\w+)", r"out_norm.norm.\1"),
)
_POPART = (
    (r"mean", "mu"),
    (r"mean_square", "nu"),
    (r"scale", "w"),
    (r"shift", "b"),
    (r"num_updates", "_t"),
)


def read_amago_weights(path: str | Path, agent: ActorCritic) -> dict[str, Tensor]:
    """The state of `agent` in an AMAGO `policy.pt` (a state dict); nothing is unpickled but tensors.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not match the agent's one to one.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own words advise to unpickle it whatever it holds.
        raise CheckpointError(f"{path}: expected AMAGO weights, got a file of something else than tensors") from error
    except Exception as error:
        # What torch raises for a file that is not its own depends on the file.
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: expected AMAGO weights, got {message}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected AMAGO weights (a state dict), got {type(state).__name__}")
    try:
        return AmagoNames.of(agent).from_amago(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@dataclass(frozen=True)
class AmagoNames:
    """How one agent's weights are called and laid out in AMAGO.

    names: ours to AMAGO's, every name of the agent's state.
    """

    names: dict[str, str]
    _num_heads: dict[str, int]
    _shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, agent: ActorCritic) -> AmagoNames:
        """The names of an agent of built-in networks.

        Raises:
            CheckpointError: a weight has no counterpart in AMAGO.
        """
        state = agent.state_dict()
        heads = {
            f"{name}.qkv": module.num_heads
            for name, module in agent.named_modules()
            if isinstance(module, SelfAttention)
        }
        depths = {_stem(name): int(index) for name in state for index in _layer_indices(name)}
        names: dict[str, str] = {}
        unknown: list[str] = []
        for name in state:
            translated = _translate(name, state, depths)
            if translated is None:
                unknown.append(name)
            else:
                names[name] = translated
        if unknown:
            raise CheckpointError(f"AMAGO has no counterpart of {', '.join(sorted(unknown))}")
        return cls(names, heads, {name: tuple(value.shape) for name, value in state.items()})

    def from_amago(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state of an AMAGO state dict, whose lagging critics and unused statistics are left out.

        Raises:
            CheckpointError: names are missing, unknown, or of a shape that does not fit this agent; all are listed.
        """
        expected = set(self.names.values())
        missing = sorted(expected - set(state))
        normalizes = any(name.startswith(INPUT_NORM_PREFIX) for name in expected)
        spare = (LAGGING_PREFIX,) if normalizes else (LAGGING_PREFIX, INPUT_NORM_PREFIX)
        unknown = sorted(name for name in state if name not in expected and not name.startswith(spare))
        if missing or unknown:
            raise CheckpointError(
                f"AMAGO weights: missing are {', '.join(missing) or 'none'}; unknown are {', '.join(unknown) or 'none'}"
            )
        translated = {}
        misshapen = []
        for ours, theirs in self.names.items():
            if state[theirs].numel() != _size(self._shapes[ours]):
                misshapen.append(f"{theirs} {list(state[theirs].shape)} for {ours} {list(self._shapes[ours])}")
            else:
                translated[ours] = self.tensor_from_amago(ours, state[theirs])
        if misshapen:
            raise CheckpointError(f"AMAGO weights: shapes do not fit the settings: {', '.join(misshapen)}")
        return translated

    def tensor_from_amago(self, ours: str, value: Tensor) -> Tensor:
        """AMAGO's tensor of a weight (its gradient, its moments) in our layout; `ours` is the weight's name here."""
        return self._reorder(ours, value, head_major_rows).reshape(self._shapes[ours])

    def tensor_to_amago(self, ours: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `tensor_from_amago`; `shape` is that of AMAGO's tensor."""
        return self._reorder(ours, value, channel_major_rows).reshape(shape)

    def _reorder(self, ours: str, value: Tensor, reorder: Callable[[Tensor, int], Tensor]) -> Tensor:
        stem, _, leaf = ours.rpartition(".")
        if stem in self._num_heads and leaf in ("weight", "bias", "u"):
            return reorder(value, self._num_heads[stem])
        return value


def _translate(name: str, state: Mapping[str, Tensor], depths: Mapping[str, int]) -> str | None:
    top, _, rest = name.partition(".")
    if top not in _TOP_LEVEL:
        return None
    below = _translate_below(top, rest, state, depths.get(_stem(name)))
    return None if below is None else f"{_TOP_LEVEL[top]}.{below}"


def _translate_below(top: str, rest: str, state: Mapping[str, Tensor], depth: int | None) -> str | None:
    if top in ("policy_head", "target_policy_head"):
        return _mlp_name(rest, r"mlp\.layers", "base", ("in_layer", "layers", "out_layer"), depth)
    if top in ("critics", "target_critics"):
        return _mlp_name(rest, "layers", "net", ("inp_layer", "core_layers", "output_layer"), depth)
    if top == "popart":
        return _first_match(rest, _POPART)
    if top == "timestep_encoder":
        convolution = re.fullmatch(r"images\.0\.convolutions\.(\d+)\.(\w+)", rest)
        if convolution:
            return f"cnn.conv{int(convolution[1]) + 1}.{convolution[2]}"
        in_mlp = _mlp_name(rest, r"mlp\.layers", "base", ("in_layer", "layers", "out_layer"), depth)
        return in_mlp or _first_match(rest, _TIMESTEP_ENCODER)
    if any(other.startswith("sequence_model.rnn.") for other in state):
        return _first_match(rest, _RECURRENT)
    if any(other.startswith("sequence_model.blocks.") for other in state):
        return _first_match(rest, _FEED_FORWARD)
    return _first_match(rest, _TRANSFORMER)


def _mlp_name(rest: str, ours: str, theirs: str, kinds: tuple[str, str, str], depth: int | None) -> str | None:
    match = re.fullmatch(rf"{ours}\.(\d+)\.(\w+)", rest)
    if match is None:
        return None
    index = int(match[1])
    first, core, last = kinds
    layer = last if index == depth else first if index == 0 else f"{core}.{index - 1}"
    return f"{theirs}.{layer}.{match[2]}"


def _first_match(rest: str, patterns: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, template in patterns:
        match = re.fullmatch(pattern, rest)
        if match:
            return match.expand(template)
    return None


def _layer_indices(name: str) -> list[str]:
    """The index of an MLP's or an ensemble's layer in a weight's name."""
    return re.findall(r"(?:mlp\.layers|critics\.layers)\.(\d+)\.\w+$", name)


def _stem(name: str) -> str:
    """The name up to the index of an MLP's layer."""
    return re.sub(r"\.\d+\.\w+$", "", name)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
