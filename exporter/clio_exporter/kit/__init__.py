"""What goes with the exporter, made from tables for the names and limits of whoever asks."""
