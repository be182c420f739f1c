"""Sizing of clusters: pure arithmetic over published numbers. See README.md."""
