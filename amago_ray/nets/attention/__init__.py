"""Causal attention over packed sequences, behind one small protocol; all backends give the same values."""
