"""The decision itself: deadline, ask, fail closed, audit."""
