//! The inner loops: bit masks of rows, comparisons that fill them, bit packing, and taking out what a mask wants.
//!
//! Everything here is plain, safe Rust in a shape that the compiler vectorises: fixed-size chunks, no branches on data,
//! no calls. Each kernel is tested against an obvious scalar twin. A kernel works on at most [`crate::BLOCK_ROWS`] values
//! at a time, so its input and output stay in the first- or second-level cache.

mod bitpack;
mod compact;
pub(crate) mod compare;
mod mask;

pub(crate) use bitpack::{Packed, bits_of};
pub(crate) use compact::compact;
pub(crate) use mask::Mask;
