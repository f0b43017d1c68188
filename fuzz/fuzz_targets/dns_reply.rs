//! Replies, as a server outside sends them, or whoever pretends to be one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::reply(input));
