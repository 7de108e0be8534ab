//! The run configuration: one TOML file, every knob in it.
