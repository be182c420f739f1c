"""What is wrong with the cluster, by deterministic checks. See README.md."""
