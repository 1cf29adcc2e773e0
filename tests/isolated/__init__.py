"""Real installations of isolated baselines: `make test-isolated`."""
