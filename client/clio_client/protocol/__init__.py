"""The wire protocol as pure functions: bytes to frames and typed records, and back."""
