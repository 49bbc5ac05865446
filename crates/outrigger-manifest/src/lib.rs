//! What a plugin declares, and what a host grants it.
