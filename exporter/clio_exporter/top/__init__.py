"""`clio-exporter top`: the cluster live in a terminal, from what `/metrics` says.

`frame.py` (metrics to nodes, rates) and `view.py` (nodes to lines) are pure; `sources.py` gets metrics;
`app.py` draws, and alone needs textual.
"""
