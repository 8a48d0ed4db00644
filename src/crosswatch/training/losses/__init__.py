"""What each model learns by."""
