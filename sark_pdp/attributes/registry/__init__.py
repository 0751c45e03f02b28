"""The registry in PostgreSQL: its tables and views, what notifies of changes, and sample data."""
