"""The shipped dialogue: a gold-loan line. Its table, what it understands, what it does, and what it says."""
