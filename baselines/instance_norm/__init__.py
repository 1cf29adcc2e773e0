"""Voice conversion by instance normalisation: the network, its training, and the system."""
