"""From deliveries of a plant to synchronised, memory-mapped batches and windows over them."""
