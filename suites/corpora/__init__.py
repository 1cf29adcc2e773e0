"""Corpora: their tables, layouts, catalogue and downloads."""
