"""The supervisor: starts several workers on one port, starts crashed ones again, and ends with all of them."""
