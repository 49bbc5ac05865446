//! The bytes of an HTTP/2 client, on their way to a server.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_wire::fuzzing::authorities(bytes));
