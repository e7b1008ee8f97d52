"""Prometheus exporter for clusters that run IOWarp's CLIO runtime (formerly Chimaera)."""
