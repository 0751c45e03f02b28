"""What every part that talks to PostgreSQL shares: connection strings and errors without secrets, and migrations."""
