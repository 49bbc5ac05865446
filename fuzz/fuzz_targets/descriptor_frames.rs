//! What the ends of a descriptor socket tell each other.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_wire::fuzzing::descriptor_frames(bytes));
