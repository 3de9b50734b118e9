"""Making the timestep encoder that the settings ask for."""

from __future__ import annotations

from amago_ray.config.model import TimestepEncoderConfig
from amago_ray.data.specs import EnvSpec, ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.custom import load_custom_module
from amago_ray.nets.encoders.cnn import CnnTimestepEncoder
from amago_ray.nets.encoders.mlp import MlpTimestepEncoder


def build_timestep_encoder(config: TimestepEncoderConfig, spec: EnvSpec) -> TimestepEncoder:
    """The encoder that `config` asks for, reading the observation leaves that it selects.

    Raises:
        ConfigError: an unknown kind, an observation key that the environment lacks, or a CNN without an image.
    """
    leaves = select_leaves(config, spec)
    has_image = any(leaf.is_pixels for leaf in leaves.values())
    kind = ("cnn" if has_image else "mlp") if config.kind == "auto" else config.kind
    if kind == "mlp":
        return MlpTimestepEncoder(config, leaves, spec)
    if kind == "cnn":
        if not has_image:
            raise ConfigError(
                'model.timestep_encoder.kind: "cnn" expects an image (a uint8 observation of three dimensions, '
                f"channels first), found {_describe(leaves)}"
            )
        return CnnTimestepEncoder(config, leaves, spec)
    return load_custom_module("model.timestep_encoder.kind", kind, TimestepEncoder, config, spec)


def select_leaves(config: TimestepEncoderConfig, spec: EnvSpec) -> dict[str, ObservationSpec]:
    """The observation leaves that the encoder reads, sorted by name.

    Raises:
        ConfigError: a key that the environment lacks.
    """
    if config.observation_keys is None:
        return dict(sorted(spec.observations.items()))
    for key in config.observation_keys:
        if key not in spec.observations:
            known = ", ".join(sorted(spec.observations))
            raise ConfigError(f'model.timestep_encoder.observation_keys: expected keys among {known}, found "{key}"')
    return {key: spec.observations[key] for key in sorted(set(config.observation_keys))}


def _describe(leaves: dict[str, ObservationSpec]) -> str:
    return ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items())
