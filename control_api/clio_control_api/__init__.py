"""The control API: JSON about a cluster of runtimes, and safe shutdown and restart of its nodes over SSH."""
