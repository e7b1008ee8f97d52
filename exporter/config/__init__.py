"""Where the exporter's configuration comes from: settings file, hostfile, the runtime's own YAML.

Parsers are pure functions over text; reading files is in `files`; whatever is wrong is a `ConfigError`.
"""
