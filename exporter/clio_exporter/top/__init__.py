"""`clio-exporter top`: the cluster in a terminal, live from what `/metrics` says, or as it was in a job.

`frame.py` (metrics to nodes, rates) and `view.py` (nodes to lines) are pure; `sources.py` and `saved.py` get
frames; `app.py` draws, and alone needs textual; `leaving.py` minds the signals.
"""
