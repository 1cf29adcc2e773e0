"""The wrapper contract: what `vcbench baseline check NAME` checks of any system."""
