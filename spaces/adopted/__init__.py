"""A model of the user's own as recorded operations; see "A model of the user's own" in `docs/architecture.md`."""
