//! Export to a Hugging Face folder.
