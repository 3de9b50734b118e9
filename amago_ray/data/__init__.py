"""The data that parts exchange: episodes, packed batches, goal rules, array specs."""

from amago_ray.data.episode import AchievedGoals, Episode, EpisodeId, PolicyVersion
from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec

__all__ = [
    "AchievedGoals",
    "ActionSpec",
    "EnvSpec",
    "Episode",
    "EpisodeId",
    "GoalRule",
    "ObservationSpec",
    "PolicyVersion",
    "SequenceBatch",
]
