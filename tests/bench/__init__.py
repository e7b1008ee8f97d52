"""Benchmarks, run by `make bench`; figures and ratios go into docs/performance.md. Never gates."""
