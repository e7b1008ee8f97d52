"""`clio-exporter doctor`: what people trip over, looked for on a live cluster, each with its remedy.

`nodes.py`, `services.py` and `ssh.py` look, bounded and without changing anything; what they saw is data. The
checks (`checks_*.py`, listed in `checks.py`) are pure functions from it to findings.
"""
