"""Makes an event of each answer and commits it to a local spool, off the answer path."""
