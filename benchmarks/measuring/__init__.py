"""What the benchmarks share: works, floors, the load of the machine, statistics, reports.

`protocol` and `load`, which the peer's Python imports too, need the standard library only.
"""
