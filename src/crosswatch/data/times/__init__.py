"""Time stamps of every kind, unfolded to seconds on the stream's own clock."""
