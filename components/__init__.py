"""One folder a task of the pipelines; each calls its stage and nothing else."""
