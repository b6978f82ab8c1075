"""Backdoor attacks on safety-critical risk models: how little poison, would anyone notice."""

__version__ = "0.1.0"
