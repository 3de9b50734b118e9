"""Training: the trainer's loop over its ports, the governor, checkpoints, the run directory, the in-process backend."""
