"""Prometheus exporter for clusters that run IOWarp's CLIO runtime (formerly Chimaera)."""

__version__ = "0.1.0"
