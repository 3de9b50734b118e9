"""Acting: the policy of a snapshot, exploration, and the env runner that turns both into episodes."""
