"""A real runtime cluster on this machine: for the demo and for the integration tests."""
