//! Records and messages, as a member seals them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::gossip(std::time::Instant::now(), input));
