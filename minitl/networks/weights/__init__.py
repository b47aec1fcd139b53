"""Weights from files: what a file holds, whose names it uses, and what of it a network takes.

`files.py`, `keras_file.py` and `apart.py` read; `sources.py` translates; `load.py` puts it into a network;
`report.py` says what happened.
"""
