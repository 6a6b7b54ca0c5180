//! A block's values as small unsigned numbers: offsets from a reference, or places in a dictionary.
//!
//! Three forms, the smallest one wins: one number for all rows, runs of equal numbers, or bit-packed numbers.

use crate::kernel::compare::select;
use crate::kernel::{Mask, Packed, bits_of, compact};

/// One number for each row of a block.
#[derive(Debug, Clone)]
pub(crate) enum Codes {
    /// All rows have this one.
    Constant(u32),
    /// Run `i` has `values[i]` and ends before row `ends[i]`.
    Runs { ends: Box<[u16]>, values: Box<[u32]> },
    /// Bit-packed.
    Packed(Packed),
}

/// Below one wanted row in this many, reading them one by one is cheaper than unpacking all.
const SPARSE_SHARE: usize = 16;

impl Codes {
    /// The smallest form of these numbers, and the memory it takes. At most [`crate::BLOCK_ROWS`] of them.
    pub(crate) fn new(codes: &[u32]) -> Codes {
        let highest = codes.iter().copied().max().unwrap_or_default();
        let runs = 1 + codes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        if runs == 1 {
            return Codes::Constant(highest);
        }
        let width = bits_of(highest);
        if runs * (size_of::<u16>() + size_of::<u32>()) >= Packed::size_bytes(width, codes.len()) {
            return Codes::Packed(Packed::pack(codes, width));
        }
        let (mut ends, mut values) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
        for (index, code) in codes.iter().enumerate() {
            if codes.get(index + 1) != Some(code) {
                ends.push((index + 1) as u16);
                values.push(*code);
            }
        }
        Codes::Runs { ends: ends.into(), values: values.into() }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Codes>()
            + match self {
                Codes::Constant(..) => 0,
                Codes::Runs { ends, values } => size_of_val(&**ends) + size_of_val(&**values),
                Codes::Packed(packed) => packed.memory_bytes(),
            }
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> u32 {
        match self {
            Codes::Constant(code) => *code,
            Codes::Runs { ends, values } => values[ends.partition_point(|end| usize::from(*end) <= row)],
            Codes::Packed(packed) => packed.get(row),
        }
    }

    /// The values that the numbers of some rows stand for; `count` is how many rows `mask` has. In one pass: what is
    /// unpacked is converted and taken out while it is in the first-level cache.
    pub(crate) fn decode<T: Clone>(&self, mask: &Mask, count: usize, convert: impl Fn(u32) -> T) -> Vec<T> {
        let mut taken = Vec::with_capacity(count);
        match self {
            Codes::Constant(code) => taken.resize(count, convert(*code)),
            _ if count < mask.rows() / SPARSE_SHARE => mask.for_each(|row| taken.push(convert(self.get(row)))),
            Codes::Runs { ends, values } => {
                let (mut start, all) = (0, count == mask.rows());
                for (end, value) in ends.iter().zip(values) {
                    let end = usize::from(*end);
                    let wanted = if all { end - start } else { mask.count_range(start..end) };
                    taken.resize(taken.len() + wanted, convert(*value));
                    start = end;
                }
            }
            Codes::Packed(packed) => {
                let mut words = mask.words();
                packed.for_each_group(|group| {
                    let (of_group, rest) = words.split_at(group.len().div_ceil(64));
                    compact(group, of_group, &mut taken, &convert);
                    words = rest;
                });
            }
        }
        taken
    }

    /// Takes the rows out of `mask` whose number fails `test`.
    pub(crate) fn filter(&self, test: impl Fn(u32) -> bool, mask: &mut Mask) {
        match self {
            Codes::Constant(code) => {
                if !test(*code) {
                    mask.clear();
                }
            }
            Codes::Runs { ends, values } => {
                let mut start = 0;
                for (end, value) in ends.iter().zip(values) {
                    if !test(*value) {
                        mask.remove_range(start..(*end).into());
                    }
                    start = (*end).into();
                }
            }
            Codes::Packed(packed) if mask.count() < mask.rows() / SPARSE_SHARE => {
                for row in mask.indices() {
                    if !test(packed.get(row as usize)) {
                        mask.remove(row as usize);
                    }
                }
            }
            Codes::Packed(packed) => {
                let mut at = 0;
                packed.for_each_group(|group| {
                    mask.and_at(at, &select(group, &test));
                    at += group.len();
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check(codes: &[u32]) -> Codes {
        let encoded = Codes::new(codes);
        assert_eq!(encoded.decode(&Mask::all(codes.len()), codes.len(), |code| code), codes);
        for (row, code) in codes.iter().enumerate() {
            assert_eq!(encoded.get(row), *code);
        }
        // Every form, with dense and sparse masks before the filter.
        for (step, keep) in [(1, true), (2, true), (40, true), (7, false), (100, false)] {
            let mut before = if keep { Mask::all(codes.len()).inverted() } else { Mask::all(codes.len()) };
            let mut change = |row| if keep { before.insert(row) } else { before.remove(row) };
            (0..codes.len()).step_by(step).for_each(&mut change);
            let rows = before.indices();
            let taken: Vec<u32> = rows.iter().map(|row| codes[*row as usize]).collect();
            assert_eq!(encoded.decode(&before, rows.len(), |code| code), taken);
            for limit in [0, 1, 3, u32::MAX] {
                let mut mask = before.clone();
                encoded.filter(|code| code < limit, &mut mask);
                let expected: Vec<u32> = rows.iter().copied().filter(|row| codes[*row as usize] < limit).collect();
                assert_eq!(mask.indices(), expected, "below {limit} of every {step}th, {keep}");
            }
        }
        encoded
    }

    #[test]
    fn each_form_is_chosen_where_it_is_smallest_and_comes_back() {
        let rows: u32 = if cfg!(miri) { 1100 } else { 8192 };
        assert!(matches!(check(&vec![7; rows as usize]), Codes::Constant(7)));
        assert!(matches!(check(&[5]), Codes::Constant(5)));
        let runs: Vec<u32> = (0..rows).map(|row| row / 1000).collect();
        assert!(matches!(check(&runs), Codes::Runs { .. }));
        let mixed: Vec<u32> = (0..rows).map(|row| row.wrapping_mul(2_654_435_761) % 5).collect();
        assert!(matches!(check(&mixed), Codes::Packed(_)));
        check(&(0..rows - 1).map(|row| u32::MAX - row).collect::<Vec<u32>>());
    }

    #[test]
    fn any_numbers_come_back() {
        let (seeds, longest) = if cfg!(miri) { (3, 130) } else { (20, 2500) };
        for seed in 0..seeds {
            let mut random = StdRng::seed_from_u64(seed);
            let (length, limit) = (random.random_range(1..longest), random.random_range(1..9));
            check(&(0..length).map(|_| random.random_range(0..limit)).collect::<Vec<u32>>());
        }
    }
}
