"""Timestep encoders: from one row's observation, previous reward and previous action to a vector."""
