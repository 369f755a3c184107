"""dynarch."""
