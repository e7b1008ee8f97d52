"""HTTP endpoints, TLS and authentication of the exporter."""
