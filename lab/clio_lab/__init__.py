"""Clusters to try things on: real runtimes on loopback with traffic, and thousands of simulated ones.

Imported by `clio-exporter demo` and `clio-exporter simulate` only, and by the tests.
"""
