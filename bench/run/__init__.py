"""Runs: convert, score and report in a folder."""
