//! Search among ascending keys without looking at them.
//!
//! ```text
//!   key      = common prefix of the node │ 8 bytes: the head, as a number │ rest
//!   prefix     "w=7 d=3 "                   one for the node
//!   heads      [o=17 l=1][o=17 l=2][o=18 l=1] …      8 bytes a key, beside each other
//! ```
//! Numbers are compared instead of byte strings, and all of a node's lie in a few cache lines. A key's own bytes are
//! read only when its head is equal and the key goes on behind it. (Graefe, "Modern B-Tree Techniques", 2011: prefix
//! truncation and poor man's normalised keys.)

use std::cmp::Ordering;

/// Longest prefix that is left out of the heads; what longer keys share beyond it makes ties, which cost a comparison.
pub(super) const PREFIX_BYTES_MAX: usize = 32;

/// The first eight bytes as a number that compares like them; missing ones count as zero.
#[inline]
pub(super) fn head_of(tail: &[u8]) -> u64 {
    match tail.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..tail.len()].copy_from_slice(tail);
            u64::from_be_bytes(bytes)
        }
    }
}

/// How many bytes two keys have in common at their beginnings.
#[inline]
pub(super) fn common_length(left: &[u8], right: &[u8]) -> usize {
    let (left_words, _) = left.as_chunks::<8>();
    let (right_words, _) = right.as_chunks::<8>();
    for (number, (left, right)) in left_words.iter().zip(right_words).enumerate() {
        let differing = u64::from_be_bytes(*left) ^ u64::from_be_bytes(*right);
        if differing != 0 {
            return 8 * number + differing.leading_zeros() as usize / 8;
        }
    }
    let words = 8 * left_words.len().min(right_words.len());
    words + left[words..].iter().zip(&right[words..]).take_while(|(left, right)| left == right).count()
}

/// Beyond so many numbers, looking at every eighth takes longer than halving.
const COUNTED_MAX: usize = 256;

/// How many of ascending numbers are below one. Every eighth is looked at, and then the eight where the place must be: unlike
/// in a binary search no step waits for the one before it, so the cache lines of a leaf are fetched all at the same time.
#[inline]
fn count_below(heads: &[u64], head: u64) -> usize {
    if heads.len() > COUNTED_MAX {
        return heads.partition_point(|other| *other < head);
    }
    let (eights, _) = heads.as_chunks::<8>();
    let below: usize = eights.iter().map(|eight| usize::from(eight[7] < head)).sum();
    let rest = heads[8 * below..].iter().take(8);
    8 * below + rest.map(|other| usize::from(*other < head)).sum::<usize>()
}

/// Keys of one node, as far as searching needs them.
pub(super) trait AscendingKeys {
    /// The key at a position.
    fn key(&self, position: usize) -> &[u8];
    /// Its length.
    fn key_length(&self, position: usize) -> usize;
}

/// Finds `key` among keys that all begin with `prefix` and whose heads behind it are `heads`: its position, or the one
/// it would have.
pub(super) fn search(prefix: &[u8], heads: &[u64], keys: &impl AscendingKeys, key: &[u8]) -> Result<usize, usize> {
    match key[..key.len().min(prefix.len())].cmp(prefix) {
        Ordering::Less => return Err(0),
        Ordering::Greater => return Err(heads.len()),
        Ordering::Equal => {}
    }
    let head = head_of(&key[prefix.len()..]);
    let first = count_below(heads, head);
    let ties = heads[first..].iter().take_while(|other| **other == head).count();
    let (mut low, mut high) = (first, first + ties);
    // If the key ends within its head, keys with this head differ from it in trailing zeros only.
    let is_short = key.len() <= prefix.len() + 8;
    while low < high {
        let middle = low + (high - low) / 2;
        let ordering = if is_short { keys.key_length(middle).cmp(&key.len()) } else { keys.key(middle).cmp(key) };
        match ordering {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(middle),
        }
    }
    Err(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_finds_the_place_that_halving_finds() {
        for length in (0..140).chain([COUNTED_MAX - 1, COUNTED_MAX, COUNTED_MAX + 1, 1000]) {
            // Each number twice, with gaps.
            let heads: Vec<u64> = (0..length as u64).map(|position| position / 2 * 3 + 1).collect();
            for head in (0..2 * length as u64 + 4).chain([u64::MAX]) {
                assert_eq!(count_below(&heads, head), heads.partition_point(|other| *other < head));
            }
        }
    }

    #[test]
    fn the_common_length_ends_with_the_first_difference_or_the_shorter_key() {
        let key: Vec<u8> = (1..40).collect();
        for length in 0..=key.len() {
            for differing in 0..length {
                let mut other = key[..length].to_vec();
                other[differing] ^= 0x80;
                assert_eq!(common_length(&key, &other), differing);
                assert_eq!(common_length(&other, &key), differing);
            }
            assert_eq!((common_length(&key, &key[..length]), common_length(&key[..length], &key)), (length, length));
        }
    }
}
