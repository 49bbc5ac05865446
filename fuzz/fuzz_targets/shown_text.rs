//! Text that somebody else chose, on its way to people and into records.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_wire::fuzzing::shown_text(bytes));
