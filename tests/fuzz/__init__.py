"""Seeded fuzzing of every decoder of foreign bytes (`make fuzz`)."""
