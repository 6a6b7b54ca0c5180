//! Bytes of rows and keys.
//!
//! Two encodings, both ours and both stable, because the log keeps them on disk:
//! * [`RowLayout`]: a compact row with every column at a constant offset, so that one column of one row is read
//!   without touching the others;
//! * [`KeyEncoder`]: a *memcomparable* key: comparing two keys as byte strings orders them as their values.

mod key;
mod keys;
mod physical;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use key::Key;
pub(crate) use keys::{KeyEncoder, Keys, format_key};
pub(crate) use row::{RawValue, RowLayout};
pub use row::{RowEditor, RowWriter};

pub use physical::canonical_type;
pub(crate) use physical::{DECIMAL64_PRECISION, Physical};
