//! Source files: plain text, TSV and JSON lines, optionally compressed.
