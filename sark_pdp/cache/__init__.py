"""Keeps decisions: keys from what a policy reads, an L1 in memory."""
