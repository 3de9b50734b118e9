"""Acting: a sequence model taken one timestep at a time, with its state."""
