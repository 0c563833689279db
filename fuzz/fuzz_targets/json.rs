#![no_main]

libfuzzer_sys::fuzz_target!(init: espalier_fuzz::set_panic_hook(), |input: &[u8]| espalier_fuzz::json(input));
