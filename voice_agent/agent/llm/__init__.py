"""A language model in the agent's seat: any OpenAI-compatible chat endpoint."""
