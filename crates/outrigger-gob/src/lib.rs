//! Go's gob encoding.
