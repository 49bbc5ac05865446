//! What a plugin writes to stderr.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_wire::fuzzing::hclog_lines(bytes));
