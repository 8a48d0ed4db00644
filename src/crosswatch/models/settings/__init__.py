"""What of each model can be set: apart from the modules, so that a command starts without torch."""
