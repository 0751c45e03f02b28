"""Turns changes of the registry in PostgreSQL into invalidations that every sidecar hears of."""
