"""What every `Relabeler` must do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amago_ray.data.arrow_codec import decode_episodes, encode_episodes
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.data.episode import Episode, validate_episode
from amago_ray.errors import DataError
from amago_ray.relabel.relabeler import Relabeler

_NUM_DRAWS = 20


def check_relabeler(relabeler: Relabeler, episodes: Sequence[Episode]) -> None:
    """Run all checks with episodes of the environment that the relabeler is made for.

    The episode to train on is valid, of the same schema, id and world, and no longer than the stored one; the stored
    one, whose arrays cannot be written, stays as it was; all randomness comes from the generator that is passed; what
    watches storage takes episodes that come and go.

    Raises:
        AssertionError: one does not hold.
    """
    stored = decode_episodes(encode_episodes(episodes))
    for episode in stored if relabeler.watches_storage else ():
        relabeler.observe(episode)
    for kept, episode in zip(episodes, stored, strict=True):
        for seed in range(_NUM_DRAWS):
            drawn = _relabeled(relabeler, episode, seed)
            _check_drawn(drawn, episode)
            assert _columns(_relabeled(relabeler, episode, seed)) == _columns(drawn), (
                "two generators of equal seed gave different episodes"
            )
        assert _columns(episode) == _columns(kept), "relabel changed the stored episode"
    for episode in stored if relabeler.watches_storage else ():
        relabeler.forget(episode)


def _relabeled(relabeler: Relabeler, episode: Episode, seed: int) -> Episode:
    before = _global_state()
    try:
        drawn = relabeler.relabel(episode, np.random.default_rng(seed))
    except ValueError as error:
        if "read-only" in str(error):
            raise AssertionError(f"relabel writes into the stored episode: {error}") from error
        raise
    assert _global_state() == before, "relabel draws from NumPy's global generator instead of the one it is given"
    return drawn


def _global_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002  (what a relabeler must leave alone)
    return state["state"]["key"].tobytes(), state["state"]["pos"]


def _check_drawn(drawn: Episode, episode: Episode) -> None:
    assert 1 <= len(drawn) <= len(episode), f"expected 1 to {len(episode)} transitions, got {len(drawn)}"
    try:
        validate_episode(drawn)
    except DataError as error:
        raise AssertionError(f"relabel returned an episode that is not valid: {error}") from error
    schema = EpisodeSchema.from_episode(episode)
    assert schema.fits(drawn), f"expected columns {schema.columns}, got {EpisodeSchema.from_episode(drawn).columns}"
    for field in ("episode_id", "env_name", "seed", "first_policy_version", "last_policy_version"):
        mine, theirs = getattr(episode, field), getattr(drawn, field)
        assert mine == theirs, f"{field}: expected {mine} as stored, got {theirs}"


def _columns(episode: Episode) -> dict[str, object]:
    """Everything that an episode holds, to be compared."""
    goals, mask = episode.achieved_goals, episode.action_mask
    return {
        **{f"observation {name}": leaf.tobytes() for name, leaf in episode.observations.items()},
        "actions": episode.actions.tobytes(),
        "rewards": episode.rewards.tobytes(),
        "ends": (bool(episode.terminated), bool(episode.truncated)),
        "achieved_goals": None if goals is None else (goals.values.tobytes(), goals.offsets.tobytes()),
        "action_mask": None if mask is None else mask.tobytes(),
    }
