"""Names in the cluster."""
