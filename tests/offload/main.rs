//! Splitting and coalescing, judged from outside: by an independent decoder and by a naive reference.

mod coalescing;
mod decoded;
mod naive;
mod packet;
mod properties;
mod splitting;
mod trace;
