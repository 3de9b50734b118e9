"""Contract checks for parts of your own, called from your own tests: an AssertionError says what does not hold.

    from amago_ray.testing import check_env_batch, check_relabeler, check_sequence_model, check_timestep_encoder

    def test_my_model() -> None:
        check_sequence_model(MyModel(config, input_dim=8, horizon=50), input_dim=8)

What this package brings itself passes the same checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.testing.env_batch import check_env_batch
    from amago_ray.testing.relabeler import check_relabeler
    from amago_ray.testing.sequence_model import check_sequence_model
    from amago_ray.testing.timestep_encoder import check_timestep_encoder

__all__ = ["check_env_batch", "check_relabeler", "check_sequence_model", "check_timestep_encoder"]

__getattr__ = importer(
    __name__,
    {
        "check_env_batch": "env_batch",
        "check_relabeler": "relabeler",
        "check_sequence_model": "sequence_model",
        "check_timestep_encoder": "timestep_encoder",
    },
)
