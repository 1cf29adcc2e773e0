"""Baseline systems that run in this process."""
