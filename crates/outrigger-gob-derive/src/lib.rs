//! The derive macro of `outrigger-gob`.
