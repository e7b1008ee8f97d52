"""What of a runtime's configuration may be shown: values of keys the runtime is known to read, nothing else.

A secret can stand under any name, so names that look secret are no protection. Shown is the value of a key in
the table below, if it has the shape such a value has,
and scrubbed (`mask_text`); of anything else only that it
is there, and a digest that tells two values apart.

The keys are those of the configurations that the wheels 1.5 to 2.3.2 bring (`clio_default.yaml` and before it
`chimaera_default.yaml`), of the modules' own parameters, and legacy sections that older files still have.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from clio_client.config.masking import mask_text

Shape = re.Pattern[str]
"""What the text of a value must match as a whole to be shown."""

Keys = Mapping[str, Any]
"""Key -> `Shape`, `Keys` (a section) or `[Keys or Shape]` (a list of such)."""

NUMBER: Final = re.compile(
    r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?|true|false", re.IGNORECASE
)
SIZE: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,6})?\s?([kmgtp]i?)?b?|auto|max|inf", re.IGNORECASE)
WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,31}|[0-9]{1,4}")
MODULE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
POOL_ID: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")
QUERY: Final = re.compile(r"[A-Za-z_]{1,32}(\([0-9, :]{0,40}\))?|[A-Za-z_]{1,32}(:[0-9]{1,10}){1,3}")
ADDRESS: Final = re.compile(r"[A-Za-z0-9.:\[\]*-]{0,64}")
TEXT: Final = re.compile(r".{0,4096}", re.DOTALL)
"""Names and paths, no longer than a path can be: any text, scrubbed."""

_DEVICE_FIGURES: Final[Keys] = dict.fromkeys(
    ("read_bandwidth_mbps", "write_bandwidth_mbps", "read_latency_us", "write_latency_us", "iops"), NUMBER
)
_TIER: Final[Keys] = {
    "path": TEXT, "bdev_type": WORD, "capacity_limit": SIZE, "growth_unit": SIZE, "score": NUMBER,
    "persistence_level": WORD, "perf_metrics": _DEVICE_FIGURES,
}  # fmt: skip
_ENGINE: Final[Keys] = {
    "storage": [_TIER],
    "dpe": {"dpe_type": WORD},
    "targets": dict.fromkeys(
        ("neighborhood", "default_target_timeout_ms", "poll_period_ms", "failover_to_successor"), NUMBER
    ),
    "performance": {
        **dict.fromkeys(
            ("stat_targets_period_ms", "target_stat_interval_ms", "max_concurrent_operations",
             "score_threshold", "score_difference_threshold", "organizer_tasks", "organizer_period_ms",
             "flush_metadata_period_ms", "flush_data_period_ms", "flush_data_min_persistence",
             "blob_cache_size_mb"), NUMBER
        ),
        "organizer": WORD, "fsync_mode": WORD, "metadata_log_path": TEXT, "transaction_log_capacity": SIZE,
    },
}  # fmt: skip
_POOL: Final[Keys] = {
    "mod_name": MODULE, "pool_name": TEXT, "pool_query": QUERY, "pool_id": POOL_ID, "next_pool_id": POOL_ID,
    "staging_pool_id": POOL_ID, "stream_pool_id": POOL_ID, "restart": NUMBER, "worker_count": NUMBER,
    # bdev, safe_bdev
    "bdev_type": WORD, "capacity": SIZE, "growth_unit": SIZE, "persistence_level": WORD, "io_depth": NUMBER,
    "alignment": SIZE, "perf_metrics": _DEVICE_FIGURES, "max_failures": NUMBER, "alloc_log": TEXT,
    "intent_sync": NUMBER,
    "members": [{
        "pool_name": TEXT, "node_id": NUMBER, "pool_id_major": NUMBER, "pool_id_minor": NUMBER,
        "parity": NUMBER,
    }],
    # cte and its layers
    **_ENGINE,
    "replication_factor": NUMBER, "remote_copies": NUMBER, "num_replicas": NUMBER, "cache_score": NUMBER,
    "replica_score": NUMBER, "min_score": NUMBER, "replicate_period_ms": NUMBER, "handoff_log_path": TEXT,
    "index_log_path": TEXT, "index_sweep_period_ms": NUMBER, "index_wal_compact_bytes": SIZE,
    "log_path": TEXT, "metadata_log_path": TEXT, "dir_split_entries": NUMBER, "tracking_enabled": NUMBER,
    "temp_directory_path": TEXT, "qtable_model_path": TEXT, "linreg_model_path": TEXT,
    "distribution_model_path": TEXT, "dnn_model_weights_path": TEXT, "trace_folder_path": TEXT,
    # summarizer: what it sends where (label_endpoint, label_prompts) is the site's own business
    "label_matches": [{"model": WORD, "context_length": NUMBER, "num_predict": NUMBER}],
}  # fmt: skip
KNOWN: Final[Keys] = {
    "networking": {
        "port": NUMBER, "neighborhood_size": NUMBER, "hostfile": TEXT, "wait_for_restart": NUMBER,
        "wait_for_restart_poll_period": NUMBER,
    },
    "runtime": {
        **dict.fromkeys(
            ("num_threads", "queue_depth", "first_busy_wait", "client_reap_grace_s",
            "task_progress_interval_ms",
             "learning_rate", "max_sleep", "heartbeat_interval"), NUMBER
        ),
        "local_sched": WORD, "conf_dir": TEXT, "ipc_namespace": TEXT, "stack_size": SIZE,
    },
    "viz": {"enabled": NUMBER, "port": NUMBER, "bind": ADDRESS, "max_threads": NUMBER},
    "swim": dict.fromkeys(
        ("enabled", "direct_probe_timeout_sec", "indirect_probe_timeout_sec", "suspicion_timeout_sec"), NUMBER
    ),
    "compose": [_POOL],
    # legacy sections
    "workers": dict.fromkeys(("sched_threads", "slow_threads", "process_reaper_threads"), NUMBER),
    "memory": dict.fromkeys(
        ("main_segment_size", "client_data_segment_size", "runtime_data_segment_size",
        "metadata_segment_size"), SIZE
    ),
    "logging": {"level": WORD, "file": TEXT},
    **_ENGINE,
}  # fmt: skip

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DIGEST_BYTES = 2


def publishable(document: Any) -> Any:
    """What of a configuration may be shown: a copy with values of known keys, scrubbed.

    Everything else, with all that is below it, becomes ``<hidden 3fa1>``. A key that is no plain name becomes
    ``<key 3fa1>``.
    """
    return _publish("", document, KNOWN)


def _publish(name: str, value: Any, known: Any) -> Any:
    if isinstance(known, Mapping) and isinstance(value, Mapping):
        return {
            _key(key): _publish(_written(key), below, known.get(_written(key)))
            for key, below in value.items()
        }
    if isinstance(known, list) and isinstance(value, (list, tuple)):
        return [_publish(name, below, known[0]) for below in value]
    if known is not None and (value is None or value in ({}, [])):
        return value
    if isinstance(known, re.Pattern) and isinstance(value, (str, bool, int, float)):
        text = _written(value)
        if known.fullmatch(text):
            return mask_text(text) if isinstance(value, str) else value
    return f"<hidden {_digest(name, value)}>"


def _key(key: Any) -> str:
    text = _written(key)
    return text if _PLAIN_KEY.fullmatch(text) and mask_text(text) == text else f"<key {_digest('', text)}>"


def _digest(name: str, value: Any) -> str:
    """Two bytes in hexadecimal: tells different values apart (but for one pair in 65,536).

    Short on purpose: of a list of guesses at a secret it leaves one in 65,536 standing,
    so that it confirms none.
    """
    text = json.dumps([name, _canonical(value)], ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _canonical(value: Any) -> Any:
    """`value` without what is only layout: the order of keys."""
    if isinstance(value, Mapping):
        return {
            "keys": sorted((_written(key), json.dumps(_canonical(below))) for key, below in value.items())
        }
    if isinstance(value, (list, tuple)):
        return [_canonical(below) for below in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_written(below) for below in value)
    return _written(value)


def _written(value: Any) -> str:
    """A scalar as the file has it (a number of thousands of digits cannot be converted back)."""
    return str(getattr(value, "text", value))
