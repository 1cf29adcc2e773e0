"""Training: recordings to features to checkpoints. `python -m takin_vc.train --help`."""
