"""Evaluates compiled policies: reads bundles, keeps the active revision, runs it in this process."""
