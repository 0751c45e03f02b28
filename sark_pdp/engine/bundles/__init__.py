"""Keeps the active policies as their sources have them: fetches bundles, activates what is new, keeps the last good."""
