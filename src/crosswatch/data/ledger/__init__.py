"""Who works on which delivery: claims with a lease, on a disk as in a bucket."""
