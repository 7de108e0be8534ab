//! Adafactor, AdamW and RMS-scaled AdamW.
