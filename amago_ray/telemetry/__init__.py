"""Metrics of a run.

`metrics` reduces them, `loggers` writes them to JSONL and TensorBoard files, `console` shows them, `bottleneck` says
what limits the speed of the run.
"""
