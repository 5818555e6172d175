"""Many files: found, named, planned, separated, reported."""
