//! What a net/rpc peer sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_gob::fuzzing::gob_stream(bytes));
