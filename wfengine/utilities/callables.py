"""What can be asked about a function: its parameters as a JSON schema."""

from wfengine.parameter_schema import ParameterSchema, parameter_schema

__all__ = ["ParameterSchema", "parameter_schema"]
