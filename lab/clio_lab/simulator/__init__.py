"""N simulated runtimes in one process, for scale and for faults.

The simulator answers over ZeroMQ with frames recorded from real runtimes (``recorded/``) in which only the
moving parts are replaced byte by byte. It shares no code with the exporter's own codec, so that a mistake
there cannot hide itself.
"""
