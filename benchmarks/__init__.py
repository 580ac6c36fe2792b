"""Measurements, each with its command in its docstring, and what they share with tests. A package, so that no other `benchmarks` is found."""
