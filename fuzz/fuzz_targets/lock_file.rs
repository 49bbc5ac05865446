//! What a lock file may hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_registry::fuzzing::lock(bytes));
