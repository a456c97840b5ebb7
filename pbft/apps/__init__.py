"""State machines that the cluster replicates: the interface, and the bundled key-value store."""
