"""``python -m voice_agent``."""

from voice_agent.cli.main import main

main()
