"""`Learner`: updates the agent from packed batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.agent.weights import to_arrays
from amago_ray.config import Config
from amago_ray.config.agent import AgentConfig
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.snapshot import Snapshot
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import CheckpointError, TrainingError, error_line
from amago_ray.learning.agreement import Agreement, agree
from amago_ray.learning.batch import Counts, DeviceBatch, to_device_batch
from amago_ray.learning.collective import Alone, Collective, sum_gradients, sum_scalars
from amago_ray.learning.gradients import GradientPass, accumulate_gradients
from amago_ray.learning.loss_metrics import column_means, loss_sums, statistics_metrics
from amago_ray.learning.malloc import keep_freed_memory
from amago_ray.learning.metric_sums import MetricSums
from amago_ray.learning.optimizer import AgentOptimizer
from amago_ray.learning.precision import network_dtype
from amago_ray.learning.running_statistics import RunningStatistics
from amago_ray.learning.schedules import warmed_up
from amago_ray.learning.static_shapes import compiles_for_each_size, fill_up
from amago_ray.learning.training_state import state_from_files, state_hash, state_to_files

_CHUNK_ENTRIES = 1024
"""On a CPU, heads see about so many inputs at a time: their activations then stay in cache."""

_DEVICE_CHECK_INTERVAL = 10
"""On a device, the host looks for non-finite updates only every so many updates, since looking waits."""


@dataclass(frozen=True)
class StepReport:
    """What one learner's update trained on, counted on the host. num_transitions leaves weightless sequences out."""

    learner_steps: int
    num_sequences: int
    num_tokens: int
    num_transitions: float


class Learner:
    """The agent, its optimizer, and everything that must survive a restart.

    All randomness of update k derives from (seed, k, rank), so the state holds no generator.

    Several learners, each with batches of its own, make one update by the gradient of the mean loss over all their
    transitions, with the moments of all their rows. They stay equal bit for bit: they begin equal, and whatever moves
    weights or statistics is a sum over all of them, which is the same for each, or follows from their equal weights.
    """

    learner_steps: int

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        *,
        device: str | None = None,
        incarnation: int = 0,
        seed: int = 0,
        collective: Collective | None = None,
    ) -> None:
        """A fresh learner on `device` (None: a GPU where there is one), one of a `collective` or alone."""
        self._collective = collective or Alone()
        self._config = config.learner
        self._agent_config = config.agent
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cpu":
            keep_freed_memory()
        self.incarnation = incarnation
        self.learner_steps = 0
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_derived_seed(seed, 0))
            self.agent = build_actor_critic(config, spec).to(self.device)
        self.agent.train()
        self.objective = make_objective(config.agent, spec.action).to(self.device)
        self._optimizer = AgentOptimizer(self.agent, config.learner, config.agent.tau)
        self._statistics = RunningStatistics(self.agent, self._collective)
        self._generator = torch.Generator(self.device)
        self._precision = network_dtype(config.learner.precision, self.device)
        self._fills_up = compiles_for_each_size(self.agent, self.device, self._precision)
        self._pending: list[tuple[SequenceBatch, Counts]] = []
        self._loss_metrics, self._detailed_metrics = MetricSums(), MetricSums()
        # (in a row, in total), as floats on the device.
        self._nonfinite = torch.zeros(2, device=self.device)
        if config.learner.compile:
            self._compile()

    def agree(self, batch: SequenceBatch | None, *, is_over: bool) -> Agreement:
        """What all learners do next; see `agree`. Every so often they compare their weights and statistics, too.

        Raises:
            CollectiveError: see `Collective.sum_`.
            TrainingError: they are not the same.
        """
        compares = self._collective.size > 1 and self.learner_steps % self._config.metrics_interval == 0
        return agree(self._collective, batch, is_over=is_over, fingerprint=self.fingerprint() if compares else 0)

    def step(self, batch: SequenceBatch, counts: Counts | None = None) -> StepReport | None:
        """One update; with `batches_per_update` above 1, all but the last batch of an update are only kept.

        An update whose loss or gradient is not finite changes nothing and is counted. counts: of this step's batches of
        all learners, as they agreed; None for a learner alone.

        Raises:
            CollectiveError: see `Collective.sum_`.
            TrainingError: too many such updates in a row.
            ConfigError: an episode is longer than the sequence model has positions for.
        """
        self.agent.sequence_model.check_time_index(batch.time_index)
        assert counts is not None or self._collective.size == 1
        self._pending.append((batch, Counts.of(batch) if counts is None else counts))
        if len(self._pending) < self._config.batches_per_update:
            return None
        config = self._agent_config.after(self.learner_steps)
        num_sequences = sum(batch.num_sequences for batch, _ in self._pending)
        num_tokens = sum(batch.num_tokens for batch, _ in self._pending)
        shaped = [fill_up(batch) if self._fills_up else batch for batch, _ in self._pending]
        batches = [to_device_batch(b, self.device, n_step=config.n_step) for b in shaped]
        all_counts = [counts for _, counts in self._pending]
        self._pending = []
        num_transitions = sum(each.num_transitions for each in all_counts)

        self._optimizer.zero_grad()
        self._statistics.save()
        passes = self._accumulate(config, batches, all_counts)
        losses = loss_sums(passes)
        sums = sum_gradients(self._collective, self._optimizer.parameters, list(losses.values()))
        losses = dict(zip(losses, sums, strict=True))
        grad_norm = self._optimizer.grad_norm()
        bad = 1.0 - torch.isfinite(grad_norm + losses["loss/total"]).float()
        self._statistics.restore_where(bad)
        learning_rate = warmed_up(self._config.learning_rate, self.learner_steps, self._config.warmup_steps)
        self._optimizer.step(grad_norm, learning_rate, bad)
        self._nonfinite = torch.stack([(self._nonfinite[0] + 1) * bad, self._nonfinite[1] + bad])

        self._loss_metrics.add({**losses, "loss/grad_norm": grad_norm}, 1.0 - bad)
        if self.learner_steps % self._config.metrics_interval == 0:
            shares = column_means(self.agent, self.objective, batches, passes, num_transitions)
            details = {**sum_scalars(self._collective, shares), **statistics_metrics(self.agent, passes)}
            self._detailed_metrics.add(details, 1.0 - bad)
        self.learner_steps += 1
        self._check_finite()
        return StepReport(self.learner_steps, num_sequences, num_tokens, sum(b.num_transitions for b in batches))

    def metrics(self) -> dict[str, float]:
        """Means since the last call; a metric without a value is left out. Waits for the device."""
        next_rate = warmed_up(self._config.learning_rate, self.learner_steps, self._config.warmup_steps)
        return {
            **self._loss_metrics.drain(),
            **self._detailed_metrics.drain(),
            "loss/learning_rate": next_rate,
            "loss/nonfinite_updates": float(self._nonfinite[1]),
        }

    def snapshot(self) -> Snapshot:
        """A copy of the weights that acting needs."""
        return Snapshot(PolicyVersion(self.incarnation, self.learner_steps), to_arrays(self.agent.acting_state()))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, between two updates, as tensors and plain values (batches kept by an unfinished
        accumulation are not part of it).
        """
        return {
            "incarnation": self.incarnation,
            "learner_steps": self.learner_steps,
            "seed": self._seed,
            "nonfinite": self._nonfinite.detach().cpu(),
            "agent": {name: value.detach().cpu().clone() for name, value in self.agent.state_dict().items()},
            "optimizer": {
                moment: {name: value.cpu() for name, value in values.items()}
                for moment, values in self._optimizer.state_dict().items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, all of it; the incarnation stays this learner's own.

        Raises:
            CheckpointError: the state does not fit this agent, or did not arrive whole.
        """
        try:
            self.agent.load_state_dict(state["agent"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.learner_steps, self._seed = int(state["learner_steps"]), int(state["seed"])
            self._nonfinite.copy_(state["nonfinite"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"learner state: expected one of this agent and model, got {error_line(error)}"
            ) from error
        if state_hash(self.state_dict()) != state_hash(state):
            raise CheckpointError("learner state: expected all of it to be loaded, got differences afterwards")
        self._pending = []

    @torch.no_grad()
    def fingerprint(self) -> int:
        """A number below 2^40 that is hardly the same for other weights or statistics. Waits for the device."""
        held = [each for each in (*self.agent.parameters(), *self.agent.buffers()) if each.dtype == torch.float32]
        bits = torch.stack([each.reshape(-1).view(torch.int32).sum(dtype=torch.int64) for each in held])
        return int((bits * torch.arange(1, len(held) + 1, device=self.device)).sum()) % 2**40

    def save_files(self) -> dict[str, bytes]:
        """The files of a checkpoint, by name."""
        return state_to_files(self.state_dict())

    def load_files(self, read: Callable[[str], bytes]) -> None:
        """Go on from the files of a checkpoint, each returned by `read(name)`.

        Raises:
            CheckpointError: a file is broken or does not fit this agent.
        """
        self.load_state_dict(state_from_files(read))

    def _accumulate(
        self, config: AgentConfig, batches: list[DeviceBatch], all_counts: list[Counts]
    ) -> list[GradientPass]:
        """This learner's share of the gradients of the mean loss over all batches; running statistics step once, by the
        moments of all of them. all_counts: of each batch, over all learners.
        """
        num_transitions, rank = sum(counts.num_transitions for counts in all_counts), self._collective.rank
        self._generator.manual_seed(_derived_seed(self._seed, 2 * self.learner_steps + 1, rank))
        passes = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # Dropout draws from torch's default generator.
            torch.manual_seed(_derived_seed(self._seed, 2 * self.learner_steps + 2, rank))
            for number, (batch, counts) in enumerate(zip(batches, all_counts, strict=True)):
                if number > 0:
                    self._statistics.rewind()
                draws = self.objective.make_draws(config, len(batch.transitions), self._generator)
                passes.append(
                    accumulate_gradients(
                        self.agent,
                        self.objective,
                        config,
                        batch,
                        draws,
                        num_transitions=num_transitions,
                        rows_per_chunk=self._rows_per_chunk(),
                        precision=self._precision,
                    )
                )
                self._statistics.average(batch.counts, counts)
                if len(batches) > 1:
                    self._statistics.gather(counts)
        if len(batches) > 1:
            self._statistics.step()
        return passes

    def _rows_per_chunk(self) -> int | None:
        if self.device.type != "cpu":
            return None
        num_samples = self._agent_config.num_action_samples_in_policy_loss
        return max(1, _CHUNK_ENTRIES // self.agent.critic_inputs_per_row(num_samples))

    def _check_finite(self) -> None:
        if self.device.type != "cpu" and self.learner_steps % _DEVICE_CHECK_INTERVAL:
            return
        in_a_row = int(self._nonfinite[0])
        if in_a_row >= self._config.max_consecutive_nonfinite_updates:
            raise TrainingError(f"learner: {in_a_row} updates in a row had a loss or gradient that is not finite")

    def _compile(self) -> None:
        for name in ("policy_head", "critics", "target_policy_head", "target_critics"):
            self.agent.get_submodule(name).compile(dynamic=True)


def _derived_seed(seed: int, number: int, rank: int = 0) -> int:
    key = (seed, number, rank) if rank else (seed, number)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
