"""The replicated key-value store."""
