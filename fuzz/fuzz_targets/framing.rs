//! A gossip stream of somebody without the key.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::framing(std::time::Instant::now(), input));
