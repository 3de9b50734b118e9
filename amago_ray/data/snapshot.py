"""`Snapshot`: the weights that acting needs, as flat named arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amago_ray.data.episode import PolicyVersion

BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
"""NumPy has no bfloat16: such arrays hold its bits under this dtype."""


@dataclass(frozen=True)
class Snapshot:
    """Acting weights of one version, by name (timestep encoder, sequence model, policy head), dtype-exact."""

    version: PolicyVersion
    arrays: dict[str, npt.NDArray[np.generic]]
