"""Listening tests: from a scored run to blinded stimuli, and from ratings to opinion scores."""
