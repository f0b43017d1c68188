//! Datagrams at the data port, made up and sealed by a member.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| weft_control::fuzzing::sealed_datagram(input));
