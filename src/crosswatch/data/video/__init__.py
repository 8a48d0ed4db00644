"""Pictures: from any file to small frames on disk, in order of time."""
