//! What a configuration file may hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_manifest::fuzzing::configuration(bytes));
