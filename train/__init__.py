"""Stage 2: the fusion model, its losses, and the fit loop on cached tensors."""
