"""From settings to a timestep encoder."""

from __future__ import annotations

from amago_ray.config.kinds import Registry
from amago_ray.config.model import (
    AutoEncoderConfig,
    CnnEncoderConfig,
    EncoderConfig,
    MlpEncoderConfig,
    TimestepEncoderConfig,
)
from amago_ray.data.specs import EnvSpec, ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.custom import checked
from amago_ray.nets.encoders.cnn import CnnTimestepEncoder
from amago_ray.nets.encoders.mlp import MlpTimestepEncoder

_WHERE = "model.timestep_encoder.kind"


def _auto(config: AutoEncoderConfig, spec: EnvSpec) -> TimestepEncoder:
    leaves = select_leaves(config, spec)
    return (CnnTimestepEncoder if _has_image(leaves) else MlpTimestepEncoder)(config, leaves, spec)


def _cnn(config: CnnEncoderConfig, spec: EnvSpec) -> TimestepEncoder:
    leaves = select_leaves(config, spec)
    if not _has_image(leaves):
        found = ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items())
        raise ConfigError(
            f'{_WHERE}: "cnn" expects an image (a uint8 observation of three dimensions, channels first), got {found}'
        )
    return CnnTimestepEncoder(config, leaves, spec)


TIMESTEP_ENCODERS: Registry[TimestepEncoder] = Registry(
    _WHERE,
    {
        AutoEncoderConfig: _auto,
        MlpEncoderConfig: lambda config, spec: MlpTimestepEncoder(config, select_leaves(config, spec), spec),
        CnnEncoderConfig: _cnn,
    },
)


def build_timestep_encoder(config: TimestepEncoderConfig, spec: EnvSpec) -> TimestepEncoder:
    """The encoder that `config` asks for, reading the observation leaves that it selects.

    Raises:
        ConfigError: an observation key that the environment lacks, a CNN without an image, or one of the user's own
            that cannot be made.
    """
    for key in config.observation_keys or ():
        if key not in spec.observations:
            known = ", ".join(sorted(spec.observations))
            raise ConfigError(f'model.timestep_encoder.observation_keys: expected keys among {known}, got "{key}"')
    return checked(_WHERE, config.kind, TIMESTEP_ENCODERS.make(config, spec), TimestepEncoder, "output_dim")


def select_leaves(config: EncoderConfig, spec: EnvSpec) -> dict[str, ObservationSpec]:
    """The observation leaves that the encoder reads, sorted by name."""
    keys = spec.observations if config.observation_keys is None else config.observation_keys
    return {key: spec.observations[key] for key in sorted(set(keys))}


def _has_image(leaves: dict[str, ObservationSpec]) -> bool:
    return any(leaf.is_pixels for leaf in leaves.values())
