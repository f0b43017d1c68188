//! A network between two nodes that loses, repeats, alters and makes up handshake datagrams.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::handshake(std::time::Instant::now(), input));
