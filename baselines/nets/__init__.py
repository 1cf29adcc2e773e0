"""Networks of published systems, written here, with the names of the published tensors."""
