"""Pipelines: order, artifacts and resources of tasks, and nothing else."""
