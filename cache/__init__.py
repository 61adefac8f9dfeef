"""The embedding cache: its format, writing, reading and verification."""
