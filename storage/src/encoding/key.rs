//! One key, kept.
//!
//! Keys are compared far more often than they are made, and most are short: a few integers. Those lie where the key lies, so
//! that making one allocates nothing, and a search among them follows no pointers.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// With the length and the tag, as much as the pointer to a longer key takes, and one word more.
const SHORT_BYTES: usize = 22;

/// The bytes of a key.
#[derive(Clone)]
pub(crate) struct Key(Kept);

#[derive(Clone)]
enum Kept {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        if key.len() > SHORT_BYTES {
            return Key(Kept::Long(key.into()));
        }
        let mut bytes = [0; SHORT_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        Key(Kept::Short { length: key.len() as u8, bytes })
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Short { length, bytes } => &bytes[..usize::from(*length)],
            Kept::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_keys_are_their_bytes_and_in_their_order() {
        let texts: Vec<Vec<u8>> = (0..60).flat_map(|length| [vec![7; length], vec![9; length]]).collect();
        for text in &texts {
            let key = Key::from(text.as_slice());
            assert_eq!((&*key, key.clone()), (text.as_slice(), Key::from(text.as_slice())));
            for other in &texts {
                assert_eq!(key.cmp(&Key::from(other.as_slice())), text.cmp(other));
            }
        }
        assert_eq!(size_of::<Key>(), 24);
    }
}
