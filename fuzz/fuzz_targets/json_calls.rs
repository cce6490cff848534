#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| duelhub::fuzz::run("json_calls", bytes));
