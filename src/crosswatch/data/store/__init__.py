"""Where batches, artifacts and claims lie when they are not on this machine: S3 or a folder."""
