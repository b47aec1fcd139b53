"""The version of minitl, whether or not it is installed."""

VERSION = "0.1.0"
