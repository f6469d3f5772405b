"""Settings: what an operator can choose, where each value came from, and clear words when one is wrong."""
