"""All settings, as plain dataclasses: one file per section, every field documented where it is defined."""

from amago_ray.config.config import Config

__all__ = ["Config"]
