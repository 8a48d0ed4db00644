"""Data versions: deliveries archived in git and DVC, and revisions that travel as a manifest."""
