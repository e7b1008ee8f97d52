"""Samples as Parquet: the only module that imports pyarrow."""

from __future__ import annotations

import itertools
from typing import IO, Final

import pyarrow as pa
from pyarrow import parquet

from clio_exporter.collectors import node
from clio_exporter.record.store import FAMILIES, Store

WHOLE: Final = frozenset(
    {node.LEADER, node.MEMORY_TOTAL, node.MEMORY_AVAILABLE, node.GPUS, node.HBM_TOTAL, node.HBM_USED}
)
"""Families whose values are integers: as such they stay exact beyond 2^53."""
_ROWS: Final = 65_536
"""In memory at once, and in a row group."""


def write(store: Store, stream: IO[bytes]) -> None:
    """The rows of `Store.csv`, typed: `timestamp` in ms UTC, labels as texts, null where there is none.

    Raises:
        OSError: the stream cannot be written.
    """
    names = store.label_names()
    schema = pa.schema(
        [
            ("timestamp", pa.timestamp("ms", tz="UTC")),
            *((name, pa.string()) for name in names),
            *((family.name, pa.int64() if family in WHOLE else pa.float64()) for family in FAMILIES),
        ]
    )
    rows = store.rows()
    with parquet.ParquetWriter(stream, schema) as writer:
        while group := [(at, *labels, *values) for at, labels, values in itertools.islice(rows, _ROWS)]:
            columns = zip(*group, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
