"""Secrets, under the name of the module that Prefect keeps them in."""

from wfengine.secrets import Secret

__all__ = ["Secret"]
