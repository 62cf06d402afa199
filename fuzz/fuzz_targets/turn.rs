#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| connlib_fuzz_entries::turn(bytes));
