//! The locks of modules that are tested under every interleaving.
//!
//! `tests/interleavings.rs` compiles the very same source files with shuttle's primitives in this module's place.

pub(crate) use arc_swap::ArcSwap;
pub(crate) use parking_lot::{Mutex, RwLock};
