"""Stage 1: data sets are read, frozen encoders run over them once, embeddings go to the cache."""
