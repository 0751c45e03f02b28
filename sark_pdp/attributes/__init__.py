"""Completes a document with what the registry says of its user, tool and server, before anything is decided on it."""
