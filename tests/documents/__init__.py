"""README.md and docs: what they show works."""
