"""Benchmarks: the scheduler and the core against the figures others published. `python -m evals.benchmarks NAME`."""

NAMES = ("openb", "kernel", "durable", "kueue", "itp", "latency", "agents", "rolling", "upload")
"""Each a module of this package with `run(options) -> Report`."""
