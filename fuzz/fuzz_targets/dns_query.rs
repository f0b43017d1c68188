//! Queries, as a sandbox sends them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::query(input));
