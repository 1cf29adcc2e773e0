"""Validity of results: training exposure, flags for fake conversions, confounds."""
