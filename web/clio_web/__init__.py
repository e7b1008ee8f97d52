"""Serve a WSGI application well: exporter-toolkit's TLS and basic auth, deadlines, a graceful stop, logs."""
