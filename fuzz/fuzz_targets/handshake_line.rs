//! The line a plugin prints before it serves.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_wire::fuzzing::handshake_line(bytes));
