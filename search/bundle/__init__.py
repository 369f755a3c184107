"""Bundles: a point of the front as a folder that runs without dynarch."""
