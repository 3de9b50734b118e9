"""An environment whose observations no agent of ours reads."""

from __future__ import annotations

import gymnasium
from gymnasium import spaces


class WordyEnv(gymnasium.Env[str, int]):
    """Shows words."""

    observation_space = spaces.Text(5)
    action_space = spaces.Discrete(2)
