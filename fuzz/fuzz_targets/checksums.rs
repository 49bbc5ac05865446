//! The file that says what a plugin's program must hash to.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_registry::fuzzing::checksums(bytes));
