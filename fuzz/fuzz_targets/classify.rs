#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strand_stress::fuzz::classify_bytes(bytes));
