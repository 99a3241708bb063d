"""Measurements, each side by side with another way of doing the same, in the same run on the same machine.

`make bench` runs all of them; `python -m bench --help` says more. What is compared takes turns (A B B A ...), so that a busy
machine slows both. A ratio above 1 means that Tidegate is ahead. Nothing here is a test: a missed target is a row that says so.
"""
