//! The random numbers, strings and names of TPC-C (clauses 2.1.6 and 4.3.2), the same for the same seed everywhere.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, 2014): one addition and a mixing function per number, good enough
//! for a benchmark, and any part of the data can start a stream of its own, so that threads change nothing in the rows.

/// What clause 4.3.2.3 builds last names of: one syllable per decimal digit.
const SYLLABLES: [&str; 10] = ["BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"];

const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Last names are numbered 0 to 999.
pub(crate) const NAMES: i32 = 1_000;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream that belongs to a list of numbers, such as a seed, a table and a district.
    pub fn of(parts: &[u64]) -> Self {
        let mut random = Random { state: 0x5EED };
        for part in parts {
            random.state ^= *part;
            random.state = random.bits();
        }
        random
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included; each is as likely as any other, to one in 2³².
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        debug_assert!(low <= high);
        let width = (i64::from(high) - i64::from(low) + 1) as u64;
        let offset = ((self.bits() >> 32) * width) >> 32;
        (i64::from(low) + offset as i64) as i32
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn chance(&mut self, percent: i32) -> bool {
        self.between(1, 100) <= percent
    }

    /// NURand of clause 2.1.6: not uniform, with its hot spots moved by `constant`.
    pub fn nurand(&mut self, a: i32, constant: i32, low: i32, high: i32) -> i32 {
        let combined = i64::from(self.between(0, a) | self.between(low, high)) + i64::from(constant);
        let width = i64::from(high) - i64::from(low) + 1;
        (combined % width + i64::from(low)) as i32
    }

    /// Appends a random string of letters and digits ("a-string") of `shortest` to `longest` characters.
    pub fn letters(&mut self, text: &mut String, shortest: i32, longest: i32) {
        let length = self.between(shortest, longest);
        self.characters(text, length, ALPHANUMERIC);
    }

    /// Appends `length` random digits ("n-string").
    pub fn digits(&mut self, text: &mut String, length: i32) {
        self.characters(text, length, &ALPHANUMERIC[..10]);
    }

    fn characters(&mut self, text: &mut String, length: i32, alphabet: &[u8]) {
        let mut left = length;
        while left > 0 {
            let mut bits = self.bits();
            // Sixteen bits choose a character: four from one number, each within a thousandth of equally likely.
            for _ in 0..left.min(4) {
                let place = ((bits & 0xFFFF) as usize * alphabet.len()) >> 16;
                text.push(char::from(alphabet[place]));
                bits >>= 16;
            }
            left -= 4;
        }
    }

    /// Appends 26 to 50 characters, one time in ten with "ORIGINAL" somewhere among them (clause 4.3.3.1).
    pub fn original_or_not(&mut self, text: &mut String) {
        const ORIGINAL: &str = "ORIGINAL";
        if !self.chance(10) {
            return self.letters(text, 26, 50);
        }
        let around = self.between(26, 50) - ORIGINAL.len() as i32;
        let before = self.between(0, around);
        self.characters(text, before, ALPHANUMERIC);
        text.push_str(ORIGINAL);
        self.characters(text, around - before, ALPHANUMERIC);
    }

    /// The numbers 1 to `count` in random order (Fisher and Yates).
    pub fn permutation(&mut self, count: i32) -> Vec<i32> {
        let mut numbers: Vec<i32> = (1..=count).collect();
        for last in (1..numbers.len()).rev() {
            let other = self.between(0, last as i32) as usize;
            numbers.swap(last, other);
        }
        numbers
    }
}

/// Appends the last name with a number from 0 to 999.
pub fn last_name(text: &mut String, number: i32) {
    for digit in [number / 100 % 10, number / 10 % 10, number % 10] {
        text.push_str(SYLLABLES[digit.unsigned_abs() as usize % 10]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together_from_the_digits() {
        let name = |number| {
            let mut text = String::new();
            last_name(&mut text, number);
            text
        };
        // The specification's own example.
        assert_eq!(name(371), "PRICALLYOUGHT");
        assert_eq!(name(0), "BARBARBAR");
        assert_eq!(name(999), "EINGEINGEING");
    }

    #[test]
    fn a_stream_belongs_to_its_numbers() {
        let take = |parts: &[u64]| Random::of(parts).bits();
        assert_eq!(take(&[1, 2]), take(&[1, 2]));
        assert_ne!(take(&[1, 2]), take(&[2, 1]));
        assert_ne!(take(&[1, 2]), take(&[1, 3]));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_ends() {
        let mut random = Random::of(&[7]);
        let numbers: Vec<i32> = (0..10_000).map(|_| random.between(-3, 3)).collect();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&-3), Some(&3)));
        for wanted in -3..=3 {
            let found = numbers.iter().filter(|&&number| number == wanted).count();
            assert!((1_200..1_700).contains(&found), "{wanted} came {found} times");
        }
    }

    #[test]
    fn nurand_has_hot_spots_that_the_constant_moves() {
        let hottest = |constant| {
            let mut random = Random::of(&[3]);
            let mut counts = vec![0; 3_001];
            for _ in 0..200_000 {
                let number = random.nurand(1_023, constant, 1, 3_000);
                assert!((1..=3_000).contains(&number));
                counts[number as usize] += 1;
            }
            let (number, count) = counts.iter().enumerate().max_by_key(|(_, count)| **count).expect("numbers");
            // Equally likely would be 67 each.
            assert!(*count > 200, "the most frequent number came {count} times");
            number
        };
        assert_ne!(hottest(0), hottest(500));
    }

    #[test]
    fn one_text_in_ten_is_original() {
        let mut random = Random::of(&[11]);
        let mut originals = 0;
        for _ in 0..10_000 {
            let mut text = String::new();
            random.original_or_not(&mut text);
            assert!((26..=50).contains(&text.len()), "{text}");
            originals += i32::from(text.contains("ORIGINAL"));
        }
        assert!((850..1_150).contains(&originals), "{originals}");
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut numbers = Random::of(&[5]).permutation(1_000);
        assert_ne!(numbers[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=1_000));
    }
}
