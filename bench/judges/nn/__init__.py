"""Networks and batching that several judges share."""
