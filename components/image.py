"""The image that every component runs in; a deployment compiles with its own, by digest."""

IMAGE = "crosswatch/python:0.1.0"
