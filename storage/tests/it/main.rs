//! The store from the outside. One binary, because each costs a build a link and the disk a copy of what it rests on; only
//! `interleavings` is one of its own, for it compiles the crate's files a second time.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, with the error in its message")]

mod basics;
mod common;
mod faults;
mod filters;
mod full_disk;
mod index_model;
mod locking;
mod marks;
mod memory;
mod memtable_scans;
mod model;
mod objects;
mod obstacles;
mod online;
mod pages;
