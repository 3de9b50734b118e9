"""Sequence models: causal, over the rows of each sequence of a packed batch."""
