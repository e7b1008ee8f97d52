"""Actions on many nodes, one after the other: what is planned, what has to hold in between, who runs it."""
