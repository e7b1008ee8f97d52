"""Health check of a cluster node: does a ZeroMQ peer answer on the runtime's client port?

The signature comes from the library's own thread: nothing is asked of the runtime.
"""

import os
import socket
import sys

port = int(os.environ.get("CLIO_PORT") or 9413) + 3
try:
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.settimeout(2)
        signature = b""
        while len(signature) < 10:
            part = connection.recv(10 - len(signature))
            if not part:
                sys.exit(f"port {port}: closed")
            signature += part
except OSError as error:
    sys.exit(f"port {port}: {error}")
if signature[0] != 0xFF or signature[9] != 0x7F:
    sys.exit(f"port {port}: no ZeroMQ peer")
