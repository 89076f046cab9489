"""Foundations without a subject of their own: atomic files, registries and plug-ins, randomness, precision."""
