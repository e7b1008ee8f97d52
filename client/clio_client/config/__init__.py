"""What an operator configured: hostfile, settings, the runtime's own YAML.

Parsers are pure functions over text; reading files is in `files`; whatever is wrong is a `ConfigError`.
"""
