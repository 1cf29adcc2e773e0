"""Trial lists: corpora, seeded builders, and the frozen manifests."""
