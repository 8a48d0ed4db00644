"""Clocks: from what the streams show, from triggers or as given, to one time with a bound."""
