"""Where sessions are kept: one protocol, several stores, and the one task that writes."""
