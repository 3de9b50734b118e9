"""Timestep encoders: from one timestep's observation, previous reward and previous action to a vector."""
