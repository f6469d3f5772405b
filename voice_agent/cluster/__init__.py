"""Many processes that work as one: who there is, how they fare, and how a request reaches the one that it is about."""
