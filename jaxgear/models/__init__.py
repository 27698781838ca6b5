"""Networks, as Flax modules: they know nothing of optimizers or of where pictures come from."""
