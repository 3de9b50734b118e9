"""Networks: timestep encoders, sequence models over packed sequences, attention backends, k/v cache, heads.

Offers `SequenceLayout`, `TokenColumns`, the contracts `TimestepEncoder`, `SequenceModel`, `PolicyDistribution` and, for
acting, `Decoder` and `DecoderState`; `build_timestep_encoder` and `build_sequence_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.nets.contracts import SequenceModel, TimestepEncoder
    from amago_ray.nets.decoding.decoder import Decoder, DecoderState
    from amago_ray.nets.distributions import PolicyDistribution
    from amago_ray.nets.encoders.make import build_timestep_encoder
    from amago_ray.nets.layout import SequenceLayout
    from amago_ray.nets.sequence.make import build_sequence_model
    from amago_ray.nets.tokens import TokenColumns


__all__ = [
    "Decoder",
    "DecoderState",
    "PolicyDistribution",
    "SequenceLayout",
    "SequenceModel",
    "TimestepEncoder",
    "TokenColumns",
    "build_sequence_model",
    "build_timestep_encoder",
]

__getattr__ = importer(
    __name__,
    {
        "Decoder": "decoding.decoder",
        "DecoderState": "decoding.decoder",
        "PolicyDistribution": "distributions",
        "SequenceLayout": "layout",
        "SequenceModel": "contracts",
        "TimestepEncoder": "contracts",
        "TokenColumns": "tokens",
        "build_sequence_model": "sequence.make",
        "build_timestep_encoder": "encoders.make",
    },
)
