//! Sessions of 2 to 10 nodes under a virtual clock, over a network that loses, reorders, doubles and forges.

mod dataplane;
mod flood;
mod forgery;
mod lifetime;
mod meeting;
mod rekey;
mod restart;
mod world;
