"""tools/figures/retrieval."""
