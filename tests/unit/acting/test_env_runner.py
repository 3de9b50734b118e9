"""The env runner: whole episodes, ids and seeds, failures, swaps of weights, and resuming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.envs import NativeCounterVector
from helpers.numeric import as_float64, assert_as_exact_as, float64
from helpers.one_line import one_line
from helpers.scripted import BOX, DISCRETE, ScriptedBatch, goals_of, make_agent, make_config, snapshot_of

from amago_ray.acting.env_runner import EnvRunner, make_env_runner
from amago_ray.acting.evaluation import make_evaluation_runner
from amago_ray.acting.exploration import EpsilonGreedy, Exploration, NoExploration
from amago_ray.acting.policy import Policy
from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.config import Config
from amago_ray.config.agent import ActorCriticConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import EpsilonGreedyConfig
from amago_ray.config.rollout import RolloutConfig
from amago_ray.data.episode import Episode, PolicyVersion, validate_episode
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.specs import ActionSpec
from amago_ray.envs.env_batch import EnvBatch, EnvFailure, Observations, StepColumns
from amago_ray.envs.vector_batch import VectorBatch
from amago_ray.errors import EnvError
from amago_ray.nets.decoding.kv_cache import KvCache
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native.decode import load_decode_kernel
from amago_ray.nets.sequence.transformer import Transformer
from amago_ray.nets.tokens import TokenColumns


def make_runner(
    batch: EnvBatch | None = None,
    *,
    config: Config | None = None,
    seed: int = 7,
    run_id: int = 7,
    runner: int = 0,
    incarnation: int = 0,
    exploration: Exploration | None = None,
    greedy: bool = False,
) -> EnvRunner:
    batch, config = batch or ScriptedBatch(3), config or make_config()
    made = EnvRunner(
        batch,
        Policy(config, batch.spec),
        seed=seed,
        run_id=run_id,
        runner=runner,
        incarnation=incarnation,
        exploration=exploration or NoExploration(),
        greedy=greedy,
    )
    made.load(snapshot_of(make_agent(config, batch.spec)))
    return made


class FinishedEpisode(NamedTuple):
    episode: Episode
    stats: EpisodeStats


def take_step(runner: EnvRunner) -> list[FinishedEpisode]:
    stats = runner.step()
    return [FinishedEpisode(*pair) for pair in zip(runner.take_episodes(), stats, strict=True)]


def collect(runner: EnvRunner, num_steps: int) -> list[FinishedEpisode]:
    return [finished for _ in range(num_steps) for finished in take_step(runner)]


def fingerprint(finished: list[FinishedEpisode]) -> list[Any]:
    """Everything of the episodes, comparable."""
    return [
        (
            each.stats,
            each.episode.episode_id,
            each.episode.seed,
            each.episode.first_policy_version,
            each.episode.last_policy_version,
            each.episode.actions.tobytes(),
            each.episode.rewards.tobytes(),
            each.episode.observations["observation"].tobytes(),
        )
        for each in finished
    ]


# --- whole episodes -------------------------------------------------------------------------------------------------


def test_episodes_are_whole_and_their_columns_belong_together() -> None:
    """docs/algorithm.md §14.1-4: rows, rewards, flags and goals of an episode are exactly those of its script."""
    runner = make_runner(ScriptedBatch(4, goal_dim=2, has_action_mask=True))
    finished = collect(runner, 40)
    assert len(finished) > 20
    for each in finished:
        episode = each.episode
        validate_episode(episode)
        length = 3 + episode.seed % 5
        rows = episode.observations["observation"]
        assert len(episode) == length
        assert rows.shape == (length + 1, 3)
        assert rows[:, 2].tolist() == list(range(length + 1)), "from the first row to the true last one"
        assert (rows[:, 1] == episode.seed % 997).all(), "of one episode only"
        assert len(set(rows[:, 0])) == 1
        assert episode.rewards.tolist() == list(range(1, length + 1)), "reward t leads from row t to row t + 1"
        assert (episode.terminated, episode.truncated) == (episode.seed % 2 == 0, episode.seed % 2 == 1)
        assert episode.action_mask is not None
        assert episode.action_mask[np.arange(length), episode.actions].all(), "no forbidden action was taken (A11)"
        assert episode.achieved_goals is not None
        values, offsets = episode.achieved_goals.values, episode.achieved_goals.offsets
        for row in range(length + 1):
            assert values[offsets[row] : offsets[row + 1]].tolist() == goals_of(episode.seed, row).tolist()
        assert each.stats.episode_return == sum(range(1, length + 1))
        assert each.stats.length == length
        assert each.stats.counter == episode.episode_id.counter
        assert each.stats.success == float(episode.seed % 3 == 0)
    assert runner.env_steps == 160


def test_a1_the_resetting_step_of_a_native_vector_environment_is_no_transition() -> None:
    """In the runner: next-step resets neither cross episodes nor count as steps or failures.

    Source: docs/algorithm.md §14.1.
    """
    batch = VectorBatch(lambda: NativeCounterVector(3, "next_step"), name="native")
    runner = make_runner(batch)
    finished = collect(runner, 36)
    assert len(finished) > 12
    for each in finished:
        rows = each.episode.observations["observation"]
        length = NativeCounterVector.lengths[int(rows[0, 0])]
        assert rows[:, 2].tolist() == list(range(length + 1))
        assert len(set(rows[:, 1])) == 1
        assert each.episode.rewards.tolist() == list(range(1, length + 1))
    for index in range(3):
        numbers = [
            e.episode.observations["observation"][0, 1]
            for e in finished
            if e.episode.observations["observation"][0, 0] == index
        ]
        # The first reset was to read the spec.
        assert numbers == list(range(2, len(numbers) + 2)), "no episode is lost"
    assert runner.num_dropped_episodes == 0
    in_episodes = sum(len(each.episode) for each in finished) + int(runner.running_lengths.sum())
    assert runner.env_steps == in_episodes < 3 * 36


def test_a12_what_the_environment_and_exploration_keep_or_change_does_no_harm() -> None:
    """docs/algorithm.md §14.12: counters and actions are passed as copies."""

    class Vandal(NoExploration):
        def apply(self, actions: Any, time_index: Any, env_steps: int, action_mask: Any, rng: Any) -> Any:
            self.buffer = np.array(actions) if not hasattr(self, "buffer") else self.buffer
            self.buffer[:] = actions
            time_index += 100
            return self.buffer

    calm, disturbed = make_runner(), make_runner(exploration=Vandal())
    assert fingerprint(collect(calm, 30)) == fingerprint(collect(disturbed, 30))


# --- ids and seeds --------------------------------------------------------------------------------------------------


def ids_and_seeds(runner: EnvRunner, num_steps: int = 25) -> tuple[list[tuple[int, ...]], list[int]]:
    finished = collect(runner, num_steps)
    return [tuple(each.episode.episode_id) for each in finished], [each.episode.seed for each in finished]


def test_a14_ids_and_seeds_derive_from_run_runner_incarnation_and_counter() -> None:
    """Reproducible, and never the same for another seed or run, runner, incarnation or episode.

    Source: docs/algorithm.md §14.14.
    """
    names = [(7, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1), (7, 1, 1), (0, 7, 0), (7, 0, 1_000_000)]
    all_ids, all_seeds = [], []
    for seed, number, incarnation in names:
        ids, seeds = ids_and_seeds(make_runner(seed=seed, run_id=seed + 90, runner=number, incarnation=incarnation))
        assert (ids, seeds) == ids_and_seeds(
            make_runner(seed=seed, run_id=seed + 90, runner=number, incarnation=incarnation)
        )
        assert {each[:3] for each in ids} == {(seed + 90, number, incarnation)}
        all_ids += ids
        all_seeds += seeds
    assert len(set(all_ids)) == len(all_ids) > 70
    assert len(set(all_seeds)) == len(all_seeds)
    assert all(0 <= seed < 2**31 for seed in all_seeds)


def test_a14_a_later_incarnation_acts_by_chance_of_its_own() -> None:
    """Sampling and exploration differ between runners and incarnations too, and are reproducible."""
    config = EpsilonGreedyConfig(epsilon_start=0.5)

    def actions(**name: int) -> bytes:
        batch = ScriptedBatch(3)
        runner = make_runner(batch, exploration=EpsilonGreedy(config, batch.spec, 3), **name)
        collect(runner, 20)
        return np.stack(batch.history).tobytes()

    assert actions() == actions()
    different = [actions(), actions(runner=1), actions(incarnation=1), actions(seed=8)]
    assert len(set(different)) == 4


def test_runs_of_equal_seed_play_equal_worlds_but_name_their_episodes_apart() -> None:
    (ids, seeds), (other_ids, other_seeds) = (
        ids_and_seeds(make_runner(run_id=run_id)) for run_id in (2**62, 2**62 + 1)
    )
    assert seeds == other_seeds
    assert not set(ids) & set(other_ids)
    assert [each[1:] for each in ids] == [each[1:] for each in other_ids]


def test_begin_incarnation_is_a_new_runner_of_that_incarnation() -> None:
    used = make_runner()
    collect(used, 11)
    used.begin_incarnation(5)
    assert fingerprint(collect(used, 30)) == fingerprint(collect(make_runner(incarnation=5), 30))


def test_isolated_environments_are_counted_and_the_last_one_ends_it() -> None:
    failing = [1]

    class Failing(ScriptedBatch):
        def step(self, actions: np.ndarray) -> StepColumns:
            columns = super().step(actions)
            failures = [EnvFailure(index, "kind", f"env 'odd': lost {index}", is_isolated=True) for index in failing]
            failing.clear()
            return replace(columns, failures=failures)

    runner = make_runner(Failing(2))
    runner.step()
    assert (runner.num_isolated_envs, runner.num_dropped_episodes) == (1, 1)
    runner.step()
    failing.append(0)
    with pytest.raises(EnvError) as error:
        runner.step()
    assert one_line(error) == "every environment has failed again and again, last: env 'odd': lost 0"


def test_what_an_environment_sets_in_torch_does_not_last() -> None:
    class Sets(ScriptedBatch):
        def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
            torch.set_default_dtype(torch.float64)
            return super().reset(indices, seeds)

        def step(self, actions: np.ndarray) -> StepColumns:
            torch.use_deterministic_algorithms(True)
            return super().step(actions)

    runner = make_runner(Sets(2))
    assert torch.get_default_dtype() is torch.float32
    runner.step()
    assert not torch.are_deterministic_algorithms_enabled()


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_failure_drops_and_counts_the_partial_episode_and_the_runner_goes_on() -> None:
    def fail(batch: ScriptedBatch) -> list[int]:
        # Environment 1 fails at its third step for every other seed.
        return [1] if batch.time[1] == 3 and batch.seeds[1] % 2 == 0 else []

    runner = make_runner(ScriptedBatch(3, length_of=lambda index, seed: 5, step_hook=fail))
    finished = collect(runner, 60)
    dropped = runner.num_dropped_episodes
    assert dropped > 2
    assert runner.failures == {"RuntimeError at scripted.py:1": dropped}
    assert runner.failure_messages == {"RuntimeError at scripted.py:1": "RuntimeError: it broke"}
    for each in finished:
        validate_episode(each.episode)
        assert len(each.episode) == 5
        assert not (each.episode.observations["observation"][0, 0] == 1 and each.episode.seed % 2 == 0)
    by_env = [sum(e.episode.observations["observation"][0, 0] == index for e in finished) for index in range(3)]
    assert by_env[0] == by_env[2] == 12, "the others are not disturbed"
    assert by_env[1] > 2
    counters = [each.stats.counter for each in finished]
    assert len(set(counters)) == len(counters)
    assert runner.env_steps == 180 - dropped, "a failing step is no transition"


def test_a_failure_in_the_step_that_would_end_the_episode_drops_it() -> None:
    batch = ScriptedBatch(1, length_of=lambda index, seed: 2, step_hook=lambda b: [0] if b.time[0] == 2 else [])
    runner = make_runner(batch)
    assert collect(runner, 10) == []
    assert runner.num_dropped_episodes == 5


# --- policy versions ------------------------------------------------------------------------------------------------


def test_a16_episodes_bear_the_versions_that_first_and_last_acted() -> None:
    """docs/algorithm.md §14.16: not those that were current when the environment was reset."""
    config = make_config()
    batch = ScriptedBatch(2, length_of=lambda index, seed: 4)
    runner = make_runner(batch, config=config)
    agent = make_agent(config, batch.spec)
    runner.load(snapshot_of(agent, 10))
    versions = []
    for step in range(12):
        if step == 6:
            runner.load(snapshot_of(agent, 20))
        if step == 8:
            runner.load(snapshot_of(agent, 5, incarnation=1))
        versions += [(d.episode.first_policy_version, d.episode.last_policy_version) for d in take_step(runner)]
    first, second, third = versions[::2]
    assert first == (PolicyVersion(0, 10), PolicyVersion(0, 10)), "the weights loaded before its first step"
    assert second == (PolicyVersion(0, 10), PolicyVersion(0, 20))
    assert third == (PolicyVersion(1, 5), PolicyVersion(1, 5)), "the weights loaded between its reset and first step"


# --- acting equals the full forward (A6) ----------------------------------------------------------------------------

DISTRIBUTION = make_distribution(BOX, ActorCriticConfig())
CONTEXT = 6


class Tokens:
    """Every token that each running episode has shown to the policy, rebuilt from outside."""

    def __init__(self, batch: ScriptedBatch) -> None:
        self.batch = batch
        self.rows: list[list[tuple[np.ndarray, np.ndarray, float]]] = [[] for _ in range(batch.num_envs)]
        self.seeds = np.full(batch.num_envs, -1)
        self.last_actions: np.ndarray | None = None

    def note(self) -> None:
        """Before a step: the present row of every environment, with what led to it."""
        for index in range(self.batch.num_envs):
            if self.seeds[index] != self.batch.seeds[index]:
                self.rows[index] = []
                self.seeds[index] = self.batch.seeds[index]
            t, seed = self.batch.time[index], self.batch.seeds[index]
            row = np.array([index, seed % 997, t], np.float32)
            action = np.zeros(2, np.float32) if t == 0 else self.batch.history[-1][index]
            self.rows[index].append((row, action, float(t)))

    def columns(self, index: int, count: int) -> TokenColumns:
        rows = self.rows[index][-count:]
        return TokenColumns(
            {"observation": torch.from_numpy(np.stack([row for row, _, _ in rows]))},
            torch.from_numpy(np.stack([action for _, action, _ in rows])),
            torch.tensor([reward for _, _, reward in rows]),
            torch.tensor([int(row[2]) for row, _, _ in rows]),
        )


@torch.no_grad()
def full_forward(agent: ActorCritic, tokens: TokenColumns, window: int | None) -> np.ndarray:
    """The greedy action after the last token, by the networks that training uses."""
    layout = SequenceLayout.from_lengths([len(tokens.time_index)])
    x = agent.timestep_encoder(tokens)
    model = agent.sequence_model
    is_transformer = isinstance(model, Transformer)
    states = model(x, tokens.time_index, layout, window) if is_transformer else model(x, tokens.time_index, layout)
    params = agent.policy_head(states)[-1, -1]
    action: np.ndarray = DISTRIBUTION.act(params[None])[0].numpy()
    return action


@pytest.mark.parametrize("kind", ["sinusoidal", "rotary", "gru"])
def test_a6_the_runner_acts_as_the_full_forward_before_and_after_swaps(kind: str) -> None:
    """docs/algorithm.md §14.6, through the runner: staggered episodes beyond the context, and swaps in their middle.

    Greedy actions of a continuous policy are a one-to-one function of its parameters. Between swaps the cache holds
    what came since the last rebuild, seen through a window of the context in every layer.
    """
    options = {"kind": "gru", "gru_hidden_dim": 8} if kind == "gru" else {"positions": kind}
    config = make_config(context_length=CONTEXT, sequence_model=options)
    # Lengths of 3 to 19 steps, all different at any time.
    batch = ScriptedBatch(4, action=BOX, length_of=lambda index, seed: 3 + (seed + 4 * index) % 17)
    runner = make_runner(batch, config=config, greedy=True)
    agents = [make_agent(config, batch.spec, seed) for seed in range(4)]
    exact_agents = [as_float64(agent) for agent in agents]
    tokens = Tokens(batch)
    ours, plain, reference = [], [], []

    def compare(action: np.ndarray, number: int, seen: TokenColumns, window: int | None) -> None:
        ours.append(action)
        plain.append(full_forward(agents[number], seen, window))
        with float64():
            reference.append(full_forward(exact_agents[number], as_float64(seen), window))

    runner.load(snapshot_of(agents[0]))
    number, since = 0, np.full(4, 10**6)
    compared = rolled = swapped = 0
    for step in range(60):
        tokens.note()
        if step in (9, 23, 24, 41):
            number = step % 4
            runner.load(snapshot_of(agents[number], step))
            since[:] = 0
        since = np.where(batch.time == 0, 10**6, since + 1)
        runner.step()
        acted = batch.history[-1]
        for index in range(4):
            seen = len(tokens.rows[index])
            count = min(seen, CONTEXT - 1 + int(since[index]))
            compare(acted[index], number, tokens.columns(index, count), CONTEXT)
            if since[index] == 1 and kind != "gru":
                # Right after a swap this is what training sees: the last context of tokens, attended in full.
                compare(acted[index], number, tokens.columns(index, CONTEXT), None)
                swapped += 1
            compared += 1
            rolled += seen > CONTEXT
    assert_as_exact_as(ours, plain, reference=reference)
    assert compared == 240
    assert rolled > 40
    assert swapped > 6 or kind == "gru"


def test_a6_the_comparison_can_fail() -> None:
    """Without the rebuild after a swap, actions do differ from the full forward: the test above sees it."""
    config = make_config(context_length=CONTEXT)
    batch = ScriptedBatch(2, action=BOX, length_of=lambda index, seed: 30)
    runner = make_runner(batch, config=config, greedy=True)
    old, new = make_agent(config, batch.spec, 0), make_agent(config, batch.spec, 1)
    runner.load(snapshot_of(old))
    tokens = Tokens(batch)
    for step in range(10):
        tokens.note()
        if step == 9:
            runner.policy.load(snapshot_of(new))
        runner.step()
    assert np.abs(batch.history[-1][0] - full_forward(new, tokens.columns(0, CONTEXT), CONTEXT)).max() > 1e-3


# --- going on -------------------------------------------------------------------------------------------------------


def exploring_runner(batch: ScriptedBatch) -> EnvRunner:
    config = EpsilonGreedyConfig(epsilon_start=0.5, anneal_env_steps=100)
    return make_runner(batch, exploration=EpsilonGreedy(config, batch.spec, 3))


def test_a17_a_resumed_runner_goes_on_bit_for_bit() -> None:
    """docs/algorithm.md §14.17: counters, seeds, sampling, exploration factors."""
    batch, resumed_batch = ScriptedBatch(3), ScriptedBatch(3)
    runner = exploring_runner(batch)
    agent = make_agent(make_config(), batch.spec)
    runner.load(snapshot_of(agent))
    collect(runner, 17)
    state = runner.state()
    runner.abandon()
    assert runner.num_abandoned_episodes > 0

    resumed = exploring_runner(resumed_batch)
    collect(resumed, 5)
    resumed.load_state(state)
    resumed.load(snapshot_of(agent))
    for each in (runner, resumed):
        each.global_env_steps = 51
    assert fingerprint(collect(runner, 30)) == fingerprint(collect(resumed, 30))
    assert np.array_equal(np.stack(batch.history[-30:]), np.stack(resumed_batch.history[-30:]))
    assert runner.state() == resumed.state()


def test_an_abandoned_episode_never_appears_and_is_counted() -> None:
    runner = make_runner(ScriptedBatch(2, length_of=lambda index, seed: 5))
    collect(runner, 3)
    runner.abandon()
    assert runner.num_abandoned_episodes == 2
    runner.abandon()
    assert runner.num_abandoned_episodes == 2, "episodes that had not begun are no loss"
    finished = collect(runner, 5)
    assert [len(each.episode) for each in finished] == [5, 5]
    assert [each.stats.counter for each in finished] == [4, 5]


def test_the_state_is_plain_data() -> None:
    import json

    state = make_runner().state()
    assert json.loads(json.dumps(state)) == state


# --- making ---------------------------------------------------------------------------------------------------------


def test_make_env_runner_and_close() -> None:
    config = make_config()
    config = Config(
        env=EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7, "num_goals": 1, "episode_length": 9}),
        model=config.model,
        agent=config.agent,
        seed=3,
        rollout=RolloutConfig(num_envs_per_env_runner=2),
    )
    runner = make_env_runner(config, run_id=8, runner=4, incarnation=2)
    finished = collect(runner, 12)
    assert finished
    assert tuple(finished[0].episode.episode_id)[:3] == (8, 4, 2)
    assert finished[0].episode.env_name == "amago_ray/MazeRunner-v0"
    runner.close()
    batch = ScriptedBatch(1)
    make_runner(batch).close()
    assert batch.is_closed


@pytest.mark.skipif(load_decode_kernel() is None, reason="without the compiled kernel the cache is float32")
def test_collecting_keeps_its_cache_as_the_settings_say_and_everything_else_in_float32() -> None:
    config = replace(make_config(), env=EnvConfig(id="amago_ray/TMaze-v0"))
    runners = [
        make_env_runner(config, run_id=8, runner=0, incarnation=0),
        make_evaluation_runner(config, config.env, 2, 0, greedy=False),
    ]
    config = replace(config, rollout=RolloutConfig(kv_cache_dtype="float32"))
    runners.append(make_env_runner(config, run_id=8, runner=0, incarnation=0))
    dtypes = []
    for runner in runners:
        state = runner.policy.initial_state(1).network
        assert isinstance(state, KvCache)
        dtypes.append(state.keys.dtype)
        runner.close()
    assert dtypes == [torch.float16, torch.float32, torch.float32]


@pytest.mark.parametrize(
    "action", [DISCRETE, BOX, ActionSpec("multi_discrete", (2,), (3, 2)), ActionSpec("multi_binary", (3,))]
)
def test_every_kind_of_action_runs(action: ActionSpec) -> None:
    finished: list[Episode] = [each.episode for each in collect(make_runner(ScriptedBatch(2, action=action)), 12)]
    assert finished
    for episode in finished:
        assert episode.actions.dtype == action.dtype
        assert episode.actions.shape == (len(episode), *action.shape)


def test_mean_of_events_and_last_success_are_reported() -> None:
    from amago_ray.envs.env_batch import EnvEvent

    class Attempts(ScriptedBatch):
        def step(self, actions: np.ndarray) -> StepColumns:
            columns = super().step(actions)
            events = [EnvEvent(0, "attempt_return", float(self.time[0])), EnvEvent(0, "success", np.float32(0.5))]
            return StepColumns(columns.observations, columns.rewards, columns.terminated, columns.truncated, events)

    runner = make_runner(Attempts(1, length_of=lambda index, seed: 4))
    stats = collect(runner, 4)[0].stats
    assert stats.events == {"attempt_return": 2.5}
    assert stats.success == 0.5
    assert type(stats.success) is float
