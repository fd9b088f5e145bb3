"""pipeline/shards."""
