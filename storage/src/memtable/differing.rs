//! The bits in which many keys differ, as a number for each.
//!
//! ```text
//!   keys        00 00 00 02 │ 80 00 00 07 │ 80 00 1A 2B │ 80 00 00 04       columns of keys use a part of their range
//!   differing   .. .. .. 03 │ .. .. .. 0F │ .. .. 3F FF │ .. .. .. 0F
//!   code                  2         7         1A 2B              4          24 bits instead of 128, in the same order
//! ```
//! What all keys have in common says nothing about their order, wherever it stands. So a few bits are often all that there is
//! to sort by, and equal codes then mean equal keys. Keys count as if they went on with zeros; a code that is less belongs to a
//! key that is less, and equal ones say nothing unless they are [exact](Codes::are_exact).

use super::search::head_of;

/// Words of eight bytes that are looked at; what lies behind them only makes ties.
const WORDS_MAX: usize = 16;

/// A word, as all keys have it.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// Bits that any key has.
    any: u64,
    /// Bits that all keys have.
    all: u64,
}

/// What is known of some keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Differing {
    words: Vec<Word>,
    /// The shortest and the longest key.
    lengths: Option<(usize, usize)>,
}

impl Differing {
    /// Adds a key.
    #[inline]
    pub(super) fn note(&mut self, key: &[u8]) {
        let count = key.len().div_ceil(8).min(WORDS_MAX);
        match &mut self.lengths {
            Some((shortest, longest)) if *shortest == *longest && *shortest == key.len() => {}
            _ => self.note_length(key.len(), count),
        }
        for (index, word) in self.words.iter_mut().take(count).enumerate() {
            let bits = word_at(key, 8 * index);
            word.any |= bits;
            word.all &= bits;
        }
    }

    /// A key of another length than all before it.
    fn note_length(&mut self, length: usize, count: usize) {
        let (shortest, longest) = self.lengths.unwrap_or((length, length));
        if self.words.len() < count {
            // Keys that ended before these words count as zeros there.
            let all = if self.lengths.is_some() { 0 } else { u64::MAX };
            self.words.resize(count, Word { any: 0, all });
        }
        self.words[count..].iter_mut().for_each(|word| word.all = 0);
        self.lengths = Some((shortest.min(length), longest.max(length)));
    }

    /// Adds the keys that another one knows.
    pub(super) fn note_all(&mut self, other: &Differing) {
        let Some((shortest, longest)) = other.lengths else { return };
        self.note_length(shortest, other.words.len());
        self.note_length(longest, other.words.len());
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            word.any |= other.any;
            word.all &= other.all;
        }
    }
}

/// A part of a code: some neighbouring bits of a word.
#[derive(Debug, Clone, Copy)]
struct Field {
    /// The byte at which the word begins.
    at: usize,
    /// Bits of the word behind the part.
    shift: u32,
    width: u32,
}

/// How codes are made of keys.
#[derive(Debug, Default)]
pub(super) struct Codes {
    fields: Vec<Field>,
    bits: u32,
    exact: bool,
}

impl Codes {
    /// Codes of up to so many bits, fewer than 64, for the keys that were noted.
    pub(super) fn new(keys: &Differing, bits_max: u32) -> Codes {
        let mut codes = Codes { fields: Vec::new(), bits: 0, exact: false };
        let (shortest, longest) = keys.lengths.unwrap_or_default();
        codes.exact = shortest == longest && longest <= 8 * WORDS_MAX;
        let bytes = keys.words.iter().enumerate().flat_map(|(index, word)| {
            let differing = word.any & !word.all;
            (0..8).rev().map(move |byte| (8 * index, 8 * byte, (differing >> (8 * byte)) as u8))
        });
        for (at, shift, differing) in bytes {
            // Down to the lowest bit of the byte, so that there are few parts.
            let width = u8::BITS - differing.leading_zeros();
            let fitting = width.min(bits_max - codes.bits);
            if fitting > 0 {
                codes.add(Field { at, shift: shift + width - fitting, width: fitting });
            }
            codes.exact &= fitting == width;
            if codes.bits == bits_max && fitting < width {
                break;
            }
        }
        codes
    }

    fn add(&mut self, field: Field) {
        self.bits += field.width;
        match self.fields.last_mut() {
            Some(last) if last.at == field.at && last.shift == field.shift + field.width => {
                (last.shift, last.width) = (field.shift, last.width + field.width);
            }
            _ => self.fields.push(field),
        }
    }

    /// Bits of a code.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether different keys have different codes.
    pub(super) fn are_exact(&self) -> bool {
        self.exact
    }

    /// The code of one of the keys that were noted.
    #[inline]
    pub(super) fn of(&self, key: &[u8]) -> u64 {
        self.fields.iter().fold(0, |code, field| {
            let bits = word_at(key, field.at) >> field.shift & ((1 << field.width) - 1);
            code << field.width | bits
        })
    }
}

/// The eight bytes from one on as a number; missing ones count as zero.
#[inline]
fn word_at(key: &[u8], at: usize) -> u64 {
    let Some(tail) = key.get(at..) else { return 0 };
    if let Some(bytes) = tail.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    match key.last_chunk::<8>() {
        Some(bytes) if !tail.is_empty() => u64::from_be_bytes(*bytes) << (8 * (8 - tail.len())),
        _ => head_of(tail),
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn differing(keys: &[Vec<u8>]) -> Differing {
        let mut differing = Differing::default();
        keys.iter().for_each(|key| differing.note(key));
        differing
    }

    #[test]
    fn codes_are_in_the_order_of_their_keys_and_tell_them_apart_where_they_say_so() {
        for seed in 0..400_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let columns: Vec<(u32, u32)> =
                (0..random.random_range(0..40)).map(|_| (random.random(), 1 << random.random_range(0..20))).collect();
            let cuts = seed % 3 == 0;
            let keys: Vec<Vec<u8>> = (0..60)
                .map(|_| {
                    let columns = columns.iter().map(|(least, range)| least / 2 + random.random_range(0..*range));
                    let mut key: Vec<u8> = columns.flat_map(u32::to_be_bytes).collect();
                    if cuts {
                        key.truncate(random.random_range(0..=key.len()));
                    }
                    key
                })
                .collect();
            let codes = Codes::new(&differing(&keys), [63, 48, 5][seed as usize % 3]);
            for left in &keys {
                assert!(codes.of(left) >> codes.bits() == 0, "seed {seed}");
                for right in &keys {
                    assert!(left < right || codes.of(left) >= codes.of(right), "seed {seed}: {left:?} {right:?}");
                    assert!(
                        !codes.are_exact() || left == right || codes.of(left) != codes.of(right),
                        "seed {seed}: {left:?} {right:?}"
                    );
                }
            }
            // What two have noted is what one would have.
            let mut both = differing(&keys[..20]);
            both.note_all(&differing(&keys[20..]));
            both.note_all(&Differing::default());
            let together = Codes::new(&both, 63);
            let codes = Codes::new(&differing(&keys), 63);
            assert_eq!(together.are_exact(), codes.are_exact(), "seed {seed}");
            assert!(keys.iter().all(|key| together.of(key) == codes.of(key)), "seed {seed}");
        }
    }

    #[test]
    fn bits_that_all_keys_have_are_left_out_wherever_they_are() {
        let keys: Vec<Vec<u8>> = (0..1000_u32)
            .map(|number| {
                let columns = [1 + number / 250, 7 + number / 50 % 5, number % 50 * 3, 9];
                columns.iter().flat_map(|column| (column ^ 1 << 31).to_be_bytes()).collect()
            })
            .collect();
        let codes = Codes::new(&differing(&keys), 48);
        assert_eq!((codes.are_exact(), codes.bits()), (true, 3 + 4 + 8));
        assert!(!Codes::new(&differing(&keys), 14).are_exact());
    }
}
