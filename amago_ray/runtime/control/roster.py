"""`Roster`: what is known of a run's env runners, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amago_ray.config import Config
from amago_ray.runtime.control.liveness import Liveness
from amago_ray.runtime.control.routes import Routes
from amago_ray.runtime.control.step_quota import StepQuota
from amago_ray.runtime.control.untold import Untold
from amago_ray.runtime.control.weight_board import WeightBoard
from amago_ray.runtime.protocol.ledger import RUNNERS, Ledger, Reporter
from amago_ray.runtime.protocol.messages import NO_TABLE, OrdersOfRunners, RunnerBeats
from amago_ray.runtime.protocol.runner_ledger import News, RunnerTotals
from amago_ray.runtime.protocol.shard_table import ShardTable

if TYPE_CHECKING:
    from jaxtyping import Bool

# What is kept for a driver that does not ask for it.
_MOST_EPISODES = 5_000
_MOST_FAILURE_KINDS = 1_000
_ENV_STEPS, _EPISODES = (RunnerTotals._fields.index(name) for name in ("env_steps", "episodes"))


class Roster:
    """Takes in the beats of many env runners at once, in columns, and makes their orders.

    A beat of an incarnation whose place is another's, or nobody's, changes nothing, and it is told to leave.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        board: WeightBoard,
        liveness: Liveness,
        warn: Callable[[Sequence[str]], None],
    ) -> None:
        """warn: takes warnings."""
        self.ledger = ledger
        """The run's; another one when it is known how the run goes on."""
        self.routes = Routes(config.cluster.relays_above)
        self.episodes: Untold[bytes] = Untold(_MOST_EPISODES)
        """Packed statistics of finished episodes."""
        self.leaving: Mapping[int, int] = {}
        """Env runners that are told to leave, with the last incarnation of each that is."""
        self._num_unheard_episodes = 0
        """Finished episodes whose statistics no beat carried."""
        self._board = board
        self._liveness = liveness
        self._warn = warn
        self._quota = StepQuota(config.stop.env_steps, step_size=config.rollout.num_envs_per_env_runner)

    @property
    def num_untold_episodes(self) -> int:
        """Finished episodes whose statistics nobody will hear of."""
        return self._num_unheard_episodes + self.episodes.num_forgotten

    def take(self, beats: RunnerBeats, now_s: float) -> News:
        """Take in what env runners say."""
        news = self.ledger.runners.report(beats.runners, beats.incarnations, beats.totals)
        is_newest = ~news.is_late
        runners = beats.runners[is_newest]
        self._quota.free(beats.runners[news.is_another])
        self.routes.heard(runners, beats.node, now_s, is_relayed=beats.is_relayed)
        self._liveness.heard_runners(runners, now_s)
        self._warn(self._board.seen(runners, beats.versions[is_newest], now_s))
        self._take_failures(beats)
        self._take_episodes(beats, news)
        return news

    def gone(self, runner: int, incarnation: int) -> None:
        """An env runner's process is known to be dead: what it was granted is there for others."""
        if self.ledger.runners.gone(runner, incarnation):
            self._quota.free(np.array([runner]))
            self._board.gone(runner)
            self.routes.gone(runner)
            self._liveness.gone(runner)

    def orders(
        self, beats: RunnerBeats, news: News, now_s: float, *, stop: bool, may_act: bool, table: ShardTable | None
    ) -> OrdersOfRunners:
        """What to tell the senders of beats that were taken in."""
        env_steps = self.ledger.total(RUNNERS, "env_steps")
        made = beats.totals[:, _ENV_STEPS].astype(np.int64)
        is_newest, allowed = ~news.is_late, None
        granted = self._quota.allow(beats.runners[is_newest], made[is_newest], env_steps)
        if granted is not None:
            allowed = made
            allowed[is_newest] = granted
        table_version = NO_TABLE if table is None else table.version
        return OrdersOfRunners(
            stop=stop,
            may_act=may_act,
            global_env_steps=env_steps,
            beat_in_s=self.routes.beat_in_s(beats.node, is_relayed=beats.is_relayed),
            gather_s=self.routes.gathering_s(),
            must_leave=news.is_late | self._is_leaving(beats),
            allowed_env_steps=allowed,
            version=self._board.version,
            weights=self._board.newest() if self._board.is_older(beats.versions).any() else (),
            table_version=table_version,
            table=table if (beats.table_versions < table_version).any() else None,
            relay=() if beats.is_relayed else self.routes.relay_of(beats.node, now_s),
        )

    def _take_failures(self, beats: RunnerBeats) -> None:
        """Tell of each kind of failure once, whoever has it."""
        for runner, kind in beats.failures:
            known = self.ledger.sums("failures")
            if kind not in known and len(known) < _MOST_FAILURE_KINDS:
                self.ledger.report(Reporter("failures", 0, 0), {kind: 1})
                self._warn([f"env runner {runner}: environment failed and was rebuilt: {kind}"])

    def _take_episodes(self, beats: RunnerBeats, news: News) -> None:
        num_new = news.new[:, _EPISODES]
        told = [
            stats
            for row, episodes in beats.episodes.items()
            if num_new[row]
            for stats in episodes[-int(num_new[row]) :]
        ]
        self._num_unheard_episodes += int(num_new.sum()) - len(told)
        self.episodes.extend(told)

    def _is_leaving(self, beats: RunnerBeats) -> Bool[np.ndarray, " R"]:
        last = [self.leaving.get(runner, -1) for runner in beats.runners.tolist()] if self.leaving else -1
        return np.asarray(beats.incarnations <= last)
