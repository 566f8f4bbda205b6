"""Script arguments from the command line and from JSON and YAML files; see :mod:`dowdyboy_core.args`."""

from dowdyboy_core.args import parse_args, parse_json_args, parse_yaml_args

__all__ = ["parse_args", "parse_json_args", "parse_yaml_args"]
