"""Who answers: dialogues as tables, what callers mean, what is said, and what is done for them."""
