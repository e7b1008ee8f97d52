"""`clio-exporter backfill`: what a Prometheus missed, from what the nodes remember.

`live.py` asks Prometheus which series it has and when, `gaps.py` finds what is missing, `plan.py` takes it
from the nodes' rings, `remote_write.py` sends it.
"""
