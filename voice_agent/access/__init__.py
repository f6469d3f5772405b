"""Who may call, from where, and how much: decided before a request reaches what it asks for."""
