"""Sequence models: causal, over the timesteps of each sequence of a packed batch."""
