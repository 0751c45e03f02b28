"""Takes the events of all spools into PostgreSQL or TimescaleDB, each once, and answers questions about them."""
