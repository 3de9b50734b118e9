"""The suites of `gpu_learner.py`: each module says with `cases` what is measured, and with `ABOUT` how to read it."""
