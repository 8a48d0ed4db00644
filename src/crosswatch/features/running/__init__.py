"""Running an encoder over batches: in one process or many, and again after a kill."""
