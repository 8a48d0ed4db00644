"""What several tests share."""

import os

# Read by the libraries when they are imported, in this process and in those that tests start.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

pytest_plugins = ["tests.buckets", "tests.registries"]  # fixtures: s3_url, bucket, proxy; archived
