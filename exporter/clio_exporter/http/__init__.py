"""The exporter's HTTP endpoints: a Flask application over `MetricsService`."""
