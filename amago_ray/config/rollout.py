"""Settings of env runners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from amago_ray.config.ranges import NON_NEGATIVE, POSITIVE_INTEGER, POSITIVE_OR_INFINITE


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Env runners: processes that step a batch of environments with one forward per step."""

    num_env_runners: Annotated[int, POSITIVE_INTEGER] = 1
    """Processes when the run starts; under `--local` one runner in the driver's process. `amago-ray scale` changes it
    while the run goes on."""
    min_env_runners: Annotated[int, POSITIVE_INTEGER] | None = None
    """Fewest with which the run starts; the others join when the cluster has room for them. None takes
    num_env_runners."""
    max_env_runners: Annotated[int, POSITIVE_INTEGER] | None = None
    """Most that `amago-ray scale` may ask for; None takes num_env_runners."""
    num_envs_per_env_runner: Annotated[int, POSITIVE_INTEGER] = 16
    """E, environments stepped together by one runner."""
    num_cpus_per_env_runner: Annotated[float, NON_NEGATIVE] = 1.0
    """Logical CPUs that Ray reserves for each runner; the runner uses one thread."""
    num_gpus_per_env_runner: Annotated[float, NON_NEGATIVE] = 0.0
    """Share of a GPU that Ray reserves for each runner; above 0, policy and cache live there. Under `--local` all is on
    the CPU."""
    kv_cache_dtype: Literal["float16", "float32"] = "float16"
    """What collecting keeps a Transformer's keys and values in, where the compiled kernel reads them (on the CPU;
    elsewhere float32). All is computed in float32; float16 rounds what is kept to 11 bits and halves what each step has
    to read. Evaluation and loaded policies always keep float32."""
    episodes_per_add: Annotated[int, POSITIVE_INTEGER] = 8
    """Finished episodes are sent to replay in groups of at most this many."""
    max_unacknowledged_adds: Annotated[int, POSITIVE_INTEGER] = 4
    """A runner waits when this many groups are not acknowledged yet."""
    stuck_policy_alarm_s: Annotated[float, POSITIVE_OR_INFINITE] = 120.0
    """Warn when a runner has not taken newer weights for this long though there are some."""

    @property
    def fewest_env_runners(self) -> int:
        """`min_env_runners` as it holds."""
        return self.num_env_runners if self.min_env_runners is None else self.min_env_runners

    @property
    def most_env_runners(self) -> int:
        """`max_env_runners` as it holds."""
        return self.num_env_runners if self.max_env_runners is None else self.max_env_runners
