"""tools/figures/report."""
