//! From a key's hash to the row that may have it.
//!
//! ```text
//!   hash of the key ──▶ line (high bits)            fingerprint (lowest 12 bits)
//!
//!   line, 64 bytes, one cache line:  │fp row│fp row│fp row│ … 16 slots, filled from the left, 10 on average │ – │ – │
//!                                     12 + 20 bits
//! ```
//! The fingerprints are the filter: a key that is not in the segment costs the one cache line that its hash names (one
//! in twenty is full and sends the search on to the next), and in one of 400 cases the comparison with a key. A key that is
//! there costs the same line and one comparison. The table is made once and never changed; it takes 6.4 bytes a row.
//!
//! The hash is seeded for each process, so that nobody can choose keys that fall into one line.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::SEGMENT_ROWS_MAX;
use crate::encoding::Keys;

const ROW_BITS: u32 = 20;
const ROW_MASK: u32 = (1 << ROW_BITS) - 1;
const _: () = assert!(SEGMENT_ROWS_MAX <= 1 << ROW_BITS, "a row number fits its slot");

const LINE_SLOTS: usize = 16;

/// Rows for each line: with so many of 16 slots used, five lines in a hundred are full.
const LINE_ROWS: usize = 10;

/// No row: its fingerprint is none that a key gets.
const EMPTY: u32 = u32::MAX;
const FINGERPRINT_MASK: u32 = u32::MAX >> ROW_BITS;
const FINGERPRINT_MAX: u32 = FINGERPRINT_MASK - 1;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u32; LINE_SLOTS]);

/// The hash table of one segment's keys.
#[derive(Debug)]
pub(crate) struct KeyTable {
    lines: Box<[Line]>,
}

impl KeyTable {
    /// The table for keys in the order of their rows.
    pub(crate) fn new(keys: &Keys) -> KeyTable {
        assert!(keys.len() <= SEGMENT_ROWS_MAX, "{} keys", keys.len());
        let mut table = KeyTable { lines: vec![Line([EMPTY; LINE_SLOTS]); keys.len() / LINE_ROWS + 1].into() };
        for row in 0..keys.len() {
            let hash = KeyHash::of(keys.get(row));
            let mut at = table.line_of(hash);
            loop {
                if let Some(slot) = table.lines[at].0.iter_mut().find(|slot| **slot == EMPTY) {
                    *slot = hash.fingerprint() << ROW_BITS | row as u32;
                    break;
                }
                at = table.next(at);
            }
        }
        table
    }

    /// Reads the line of a hash, and nothing of it that means anything.
    pub(crate) fn touch(&self, hash: KeyHash) -> u32 {
        self.lines[self.line_of(hash)].0[0]
    }

    /// The row that has a key: the first of the few with its fingerprint that `is_it` says yes to.
    pub(crate) fn find<E>(
        &self,
        hash: KeyHash,
        mut is_it: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<Option<u32>, E> {
        let fingerprint = hash.fingerprint();
        let mut at = self.line_of(hash);
        loop {
            let line = &self.lines[at].0;
            // The comparison of all slots at once; there is hardly ever more than one.
            let mut alike: u32 = 0;
            for (bit, slot) in line.iter().enumerate() {
                alike |= u32::from(slot >> ROW_BITS == fingerprint) << bit;
            }
            while alike != 0 {
                let row = line[alike.trailing_zeros() as usize] & ROW_MASK;
                if is_it(row)? {
                    return Ok(Some(row));
                }
                alike &= alike - 1;
            }
            // There is a line that is not full: there are more slots than rows.
            if line[LINE_SLOTS - 1] == EMPTY {
                return Ok(None);
            }
            at = self.next(at);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn line_of(&self, hash: KeyHash) -> usize {
        // The high half of the product spreads the hashes evenly over any number of lines.
        ((u128::from(hash.0) * self.lines.len() as u128) >> u64::BITS) as usize
    }

    fn next(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }
}

/// The hash of a key: the same in all tables of the process, so that it is made once for all segments that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    /// A multiplication of 64 by 64 bits folded into 64, for each 16 bytes (as in Wang Yi's wyhash).
    pub(crate) fn of(key: &[u8]) -> KeyHash {
        static SEEDS: OnceLock<[u64; 2]> = OnceLock::new();
        let [first, second] = *SEEDS.get_or_init(|| {
            let random = RandomState::new();
            [random.hash_one(1) | 1, random.hash_one(2) | 1]
        });
        let (sixteens, rest) = key.as_chunks::<16>();
        let mut state = first ^ key.len() as u64;
        let mut add = |bytes: &[u8; 16]| {
            let (eights, _) = bytes.as_chunks::<8>();
            state = fold(state ^ u64::from_le_bytes(eights[0]), second ^ u64::from_le_bytes(eights[1]));
        };
        sixteens.iter().for_each(&mut add);
        if !rest.is_empty() {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            add(&last);
        }
        KeyHash(fold(state ^ second, 0x9E37_79B9_7F4A_7C15))
    }

    /// The hash as a number.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    fn fingerprint(self) -> u32 {
        (self.0 as u32 & FINGERPRINT_MASK).min(FINGERPRINT_MAX)
    }
}

fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> u64::BITS) as u64
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::encoding::{KeyEncoder, RowLayout};

    fn keys(values: impl Iterator<Item = i64>) -> Keys {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let encoder = KeyEncoder::new(&RowLayout::new(&schema).unwrap(), &[0]).unwrap();
        encoder.encode(&[Arc::new(Int64Array::from_iter_values(values)) as ArrayRef]).unwrap()
    }

    #[test]
    fn every_key_is_found_in_its_row_and_no_other_is() {
        for rows in [1, 9, 10, 11, 159, 160, 1000, 30_000] {
            let (present, absent) = (keys((0..rows).map(|row| row * 3)), keys((0..rows).map(|row| row * 3 + 1)));
            let table = KeyTable::new(&present);
            let mut comparisons = 0;
            for row in 0..present.len() {
                let key = present.get(row);
                let same = |row: u32| {
                    comparisons += 1;
                    Ok::<bool, Infallible>(present.get(row as usize) == key)
                };
                assert_eq!(table.find(KeyHash::of(key), same), Ok(Some(row as u32)));
                let other = absent.get(row);
                let same = |row: u32| {
                    comparisons += 1;
                    Ok::<bool, Infallible>(present.get(row as usize) == other)
                };
                assert_eq!(table.find(KeyHash::of(other), same), Ok(None));
            }
            // One for each key that is there, and one in some four hundred for the others.
            assert!(comparisons < rows + rows / 50 + 20, "{comparisons} for {rows} rows");
        }
    }

    #[test]
    fn hashes_tell_lengths_and_zeros_apart() {
        let texts: Vec<Vec<u8>> = (0..40).map(|length| vec![0; length]).collect();
        for (index, text) in texts.iter().enumerate() {
            assert!(texts[..index].iter().all(|other| KeyHash::of(other) != KeyHash::of(text)));
        }
    }
}
