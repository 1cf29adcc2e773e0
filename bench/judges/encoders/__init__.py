"""Speaker encoders for SECS."""
