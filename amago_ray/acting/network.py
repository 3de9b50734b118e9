"""`ActingNetwork`: the agent's networks as acting needs them, with the weights of one snapshot at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amago_ray.agent.weights import to_tensors
from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import CheckpointError
from amago_ray.nets.decoding.decoder import DecoderState
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.folding import fold_mlp, mlp_layers
from amago_ray.nets.heads import PolicyHead
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model
from amago_ray.nets.tokens import TokenColumns

ActingState = DecoderState
"""What E running episodes carry between steps; it outlives weights."""


class ActingNetwork:
    """Timestep encoder → sequence model → policy head of the acting discount (the last), folded for inference.

    States made under older weights stay valid for stepping, but only `rebuild` makes them those of the present ones.
    cache_dtype: of a Transformer's keys and values, see `TransformerDecoder`.
    rebuild_tokens: of one forward in `rebuild`, about: activations of all episodes' contexts at once would dwarf the
        weights.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        *,
        device: str = "cpu",
        cache_dtype: torch.dtype = torch.float32,
        rebuild_tokens: int = 4096,
    ) -> None:
        self._device = torch.device(device)
        self._rebuild_tokens = rebuild_tokens
        self.context_length = config.model.sequence_model.context_length
        self._cache_dtype = cache_dtype
        encoder = build_timestep_encoder(config.model.timestep_encoder, spec)
        model = build_sequence_model(config.model.sequence_model, encoder.output_dim, spec.horizon)
        self.num_params = make_distribution(spec.action, config.agent).num_params
        """P, width of what `step` returns."""
        head = PolicyHead(model.output_dim, config.model.policy_head, len(config.agent.discounts), self.num_params)
        self.modules = nn.ModuleDict({"timestep_encoder": encoder, "sequence_model": model, "policy_head": head})
        """The networks as they are trained, with the present weights."""
        self.modules.to(self._device).eval().requires_grad_(False)
        self._encoder, self._model, self._head = encoder, model, head
        self._fold()

    def load(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over weights by name: "timestep_encoder.…", "sequence_model.…", "policy_head.…"; others are passed over.

        Raises:
            CheckpointError: a weight is missing or has another shape; the old weights then stay.
        """
        targets = self.modules.state_dict()
        for name, target in targets.items():
            if name not in arrays:
                raise CheckpointError(f"weights: expected {name} {list(target.shape)}, got no such array")
            if arrays[name].shape != tuple(target.shape):
                raise CheckpointError(
                    f"weights: expected {name} of shape {list(target.shape)}, got {list(arrays[name].shape)}"
                )
        weights = to_tensors({name: arrays[name] for name in targets})
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(weights[name])
        self._fold()

    def initial_state(self, batch_size: int) -> ActingState:
        """The state of E episodes that have not begun."""
        with torch.inference_mode():
            state: ActingState = self.decoder.initial_state(batch_size)
            return state

    def reset(self, state: ActingState, indices: npt.NDArray[np.int64]) -> None:
        """Begin new episodes in these environments."""
        with torch.inference_mode():
            state.reset(indices)

    def check_time_index(self, time_index: npt.NDArray[np.int64]) -> None:
        """See `SequenceModel`."""
        self._model.check_time_index(time_index)

    def step(self, tokens: TokenColumns, state: ActingState) -> Tensor:
        """Policy parameters `[E, P]` of the acting discount for one token of each episode; advances `state`."""
        with torch.inference_mode():
            return self.policy_head(self.decoder.step(self.encode(tokens), tokens.time_index, state))

    def rebuild(
        self, state: ActingState, indices: npt.NDArray[np.int64], tokens: TokenColumns, layout: SequenceLayout
    ) -> None:
        """Recompute the state of `indices` under the present weights from the last tokens of each episode.

        Sequence j of the packed tokens belongs to `indices[j]` and holds its tokens so far, at most the last
        context_length - 1 of them: the next step then equals a full forward over the last context of tokens.
        """
        if layout.max_seqlen >= self.context_length:
            raise ValueError(
                f"rebuild: expected at most {self.context_length - 1} tokens of each episode, got {layout.max_seqlen}"
            )
        with torch.inference_mode():
            for first, last in _chunks(layout.lengths, self._rebuild_tokens):
                part = SequenceLayout.from_lengths(layout.lengths[first:last], layout.device)
                begin = int(layout.starts[first])
                rows = tokens.rows(begin, begin + part.num_tokens)
                self.decoder.rebuild(self.encode(rows), rows.time_index, part, indices[first:last], state)

    def _fold(self) -> None:
        """Prepare the present weights for stepping."""
        with torch.inference_mode():
            self.encode = self._encoder.fold()
            """Of a step: token columns to `[E, D_enc]`."""
            self.decoder = self._model.make_decoder(self.context_length, self._cache_dtype)
            """Of a step: `[E, D_enc]` to states `[E, D]`."""
            *rest, (weight, bias) = mlp_layers(self._head.mlp)
            assert bias is not None
            acting = slice(-self.num_params, None)
            self.policy_head = fold_mlp([*rest, (weight[acting], bias[acting])])
            """Of a step: states `[E, D]` to the acting discount's parameters `[E, P]`."""


def _chunks(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of sequences of at most so many tokens together, or of a single sequence."""
    first, num_tokens = 0, 0
    for i, length in enumerate(lengths):
        if i > first and num_tokens + length > most:
            yield first, i
            first, num_tokens = i, 0
        num_tokens += length
    yield first, len(lengths)
