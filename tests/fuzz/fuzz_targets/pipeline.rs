//! Feeds `vxlane_tests::fuzz::pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vxlane_tests::fuzz::pipeline(input));
