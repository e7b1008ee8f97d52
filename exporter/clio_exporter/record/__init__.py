"""`clio-exporter record`: what the nodes remember of the last 17 minutes, and what comes after.

`ring.py` asks the nodes, `store.py` keeps samples in a temporary database and writes them out, as Parquet
`parquet.py`, which alone needs pyarrow.
"""
