import dataclasses

import pytest
import torch
from helpers.local_runs import tiny_config

from amago_ray.acting import env_runner
from amago_ray.envs.make import make_spec
from amago_ray.runtime.processes.env_runner_actor import EnvRunnerActor
from amago_ray.runtime.protocol.pulse import PulseThread
from amago_ray.runtime.protocol.shard_table import ShardEntry, ShardTable


def quiet_pulses(config, name, control, **options):
    return PulseThread(lambda pulse: None, 1.0, "here", **options)


@pytest.mark.parametrize(("num_gpus", "device"), [(0.0, "cpu"), (0.25, "cuda"), (1.0, "cuda")])
def test_a_runner_with_a_share_of_a_gpu_acts_there(tmp_path, monkeypatch, num_gpus, device):
    config = tiny_config(tmp_path)
    config = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, num_gpus_per_env_runner=num_gpus))
    made = []
    monkeypatch.setattr(env_runner, "make_env_runner", lambda *args, **options: made.append(options["device"]))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    spec, table = make_spec(config.envs), ShardTable(entries={0: ShardEntry(0)})
    EnvRunnerActor(config, spec, 7, 0, 0, control=None, table=table, begin_pulses=quiet_pulses).make()
    assert made == [device]
