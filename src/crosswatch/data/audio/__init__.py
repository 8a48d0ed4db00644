"""Sound: from any file to one channel, and to how loud its bands are."""
