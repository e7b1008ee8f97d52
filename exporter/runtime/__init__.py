"""Talking to CLIO runtimes: wire codec (pure), transports, typed records."""
