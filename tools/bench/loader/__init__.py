"""tools/bench/loader."""
