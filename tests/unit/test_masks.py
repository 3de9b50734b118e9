"""Action masks from environment to loss: a forbidden action is never taken, and nobody asks what it is worth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec
from helpers.local_runs import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

import amago_ray
from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.learner import Learner
from amago_ray.nets.heads import StateCritics

LENGTHS = [5, 1, 3]


def masked_batch(kind: str, seed: int) -> SequenceBatch:
    """Random masks that allow the actions that were taken."""
    spec = make_spec(kind, has_action_mask=True)
    batch = make_batch(spec, LENGTHS, seed)
    rng = np.random.default_rng(seed)
    sizes = spec.action.num_categories
    starts = np.cumsum([0, *sizes[:-1]])
    mask = rng.random((len(batch.time_index), sum(sizes))) < rng.random()
    for start, size in zip(starts, sizes, strict=True):
        mask[np.arange(len(mask)), start + rng.integers(size, size=len(mask))] = True
    rows = np.delete(np.arange(len(mask)), batch.cu_seqlens[1:] - 1)
    mask[rows[:, None], starts + batch.action.reshape(len(rows), -1)] = True
    return SequenceBatch(**{**vars(batch), "action_mask": mask})


class Judges:
    """Spoils what critics say of forbidden actions, or checks that nobody asks."""

    def __init__(self, agent: Any, transitions: Any, offset: float) -> None:
        self.transitions, self.offset = transitions, offset
        self.num_asked = 0
        for network, mask in (
            (agent.critics, transitions.action_mask),
            (agent.target_critics, transitions.next_action_mask),
        ):
            if isinstance(network, StateCritics):
                network.register_forward_hook(self._spoil(~mask))
            else:
                network.register_forward_pre_hook(self._check(~mask))
        agent.policy_head.register_forward_hook(self._watch)
        self.gradients: list[torch.Tensor] = []

    def _spoil(self, forbidden: torch.Tensor) -> Any:
        def hook(_module: Any, _inputs: Any, values: torch.Tensor) -> torch.Tensor:
            return values + self.offset * forbidden[:, None]

        return hook

    def _check(self, forbidden: torch.Tensor) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
            action = inputs[1].detach()
            where = forbidden[:, None, None].expand(action.shape)
            assert (action[where] == 0).all()
            self.num_asked += 1

        return hook

    def _watch(self, _module: Any, _inputs: Any, params: torch.Tensor) -> None:
        if params.requires_grad:
            params.register_hook(self.gradients.append)


@settings(max_examples=30)
@given(
    agent=st.sampled_from(["actor_critic", "multi_task"]),
    kind=st.sampled_from(["discrete", "multi_discrete"]),
    coefficients=st.sampled_from([(1.0, 0.1), (0.0, 1.0), (1.0, 0.0)]),
    seed=st.integers(0, 2**20),
)
def test_a11_forbidden_actions_have_no_value_and_no_gradient(agent, kind, coefficients, seed):
    online, offline = coefficients
    batch = masked_batch(kind, seed)
    config = make_config(
        kind=agent,
        online_coefficient=online,
        offline_coefficient=offline,
        advantage_filter="exponential",
        num_action_samples_in_policy_loss=2,
        n_step=2,
    )
    results = []
    for offset in (0.0, 1e4):
        torch.manual_seed(seed)
        built = build_actor_critic(config, make_spec(kind, has_action_mask=True))
        device_batch = to_device_batch(batch, torch.device("cpu"), n_step=2)
        judges = Judges(built, device_batch.transitions, offset)
        generator = torch.Generator().manual_seed(seed)
        objective = make_objective(config.agent, make_spec(kind).action)
        draws = objective.make_draws(config.agent, sum(LENGTHS), generator)
        given = objective, config.agent, device_batch, draws
        evaluation = accumulate_gradients(built, *given, num_transitions=float(sum(LENGTHS)))
        forbidden = ~device_batch.transitions.action_mask
        assert judges.gradients
        for gradient in judges.gradients:
            assert (gradient.permute(0, 2, 1)[forbidden] == 0).all()
        results.append(torch.stack([evaluation.losses[0].total.detach(), evaluation.returns.sum()]))
        assert judges.num_asked or isinstance(built.critics, StateCritics)
    assert torch.equal(*results)


RUNS = [
    ({}, {"kind": "instruction", "strategy": "all"}, "actor_critic"),
    ({"mask_in_info": True}, {"kind": "instruction", "strategy": "some"}, "multi_task"),
    ({"joint": True, "num_goals": 1}, {"kind": "her", "her_probability": 1.0}, "actor_critic"),
    ({"joint": True, "mask_in_info": True}, {"kind": "none"}, "multi_task"),
]


@pytest.mark.parametrize(("kwargs", "relabel", "kind"), RUNS)
def test_a11_runs_never_take_nor_train_on_a_forbidden_action(kwargs, relabel, kind, tmp_path: Path, monkeypatch):
    num_rows = 0
    step = Learner.step

    def checked(self: Learner, batch: SequenceBatch) -> Any:
        nonlocal num_rows
        rows = np.delete(np.arange(len(batch.time_index)), batch.cu_seqlens[1:] - 1)
        starts = [0, 3][: 1 if batch.action.ndim == 1 else 2]
        chosen = np.asarray(starts) + batch.action.reshape(len(rows), -1)
        assert batch.action_mask is not None
        assert batch.action_mask[rows[:, None], chosen].all()
        # The mask is that of the row: it depends on the cell that the row shows.
        cells = np.rint(batch.observations["observation"][:, 0] * 4)
        assert (batch.action_mask[:, 0] == (cells > 0)).all()
        num_rows += len(rows)
        return step(self, batch)

    monkeypatch.setattr(Learner, "step", checked)
    config = tiny_config(
        tmp_path,
        env={"id": "helpers.masked_goal_env:MaskedGoalEnv", "kwargs": kwargs},
        stop={"learner_steps": 16},
        exploration={"kind": "bilevel", "epsilon_start": 1.0, "epsilon_final": 0.5},
        relabel={"weighting": "uniform", **relabel},
        agent={"kind": kind, **({"num_bins": 8} if kind == "multi_task" else {})},
        evaluation={"num_episodes": 6, "num_envs": 3, "at_start": False, "greedy": True},
    )

    outcome = amago_ray.train(config, local=True)

    assert num_rows > 100
    reports = [json.loads(line) for line in (outcome.run_directory / "metrics.jsonl").read_text().splitlines()]
    dropped = [report["rollout/dropped_episodes"] for report in reports if "rollout/dropped_episodes" in report]
    assert dropped
    assert not any(dropped)
