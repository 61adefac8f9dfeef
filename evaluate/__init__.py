"""Stage 3: benchmarks on cached embeddings; nothing is encoded, no encoder is loaded."""
