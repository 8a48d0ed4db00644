"""MLflow's home: runs, the model registry, promotion and its history."""
