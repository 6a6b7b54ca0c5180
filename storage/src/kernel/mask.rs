//! A set of rows of one block, one bit each.
//!
//! Row `i` is bit `i % 64` of word `i / 64`. Bits behind the last row are always zero, so counting and combining never
//! look at the length.

use std::ops::Range;

use arrow::array::{Array, BooleanArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

/// Which rows of a block are still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    words: Vec<u64>,
    rows: usize,
}

impl Mask {
    /// All rows.
    pub(crate) fn all(rows: usize) -> Mask {
        let mut mask = Mask { words: vec![u64::MAX; rows.div_ceil(64)], rows };
        mask.clear_tail();
        mask
    }

    /// Takes ready-made words; bits behind the last row are cleared.
    pub(crate) fn from_words(words: Vec<u64>, rows: usize) -> Mask {
        assert_eq!(words.len(), rows.div_ceil(64), "{rows} rows");
        let mut mask = Mask { words, rows };
        mask.clear_tail();
        mask
    }

    /// The rows that are true; NULL counts as false.
    pub(crate) fn from_boolean(array: &BooleanArray) -> Mask {
        let mut mask = Mask::from_buffer(array.values());
        if let Some(nulls) = array.nulls() {
            mask.and_buffer(nulls.inner());
        }
        mask
    }

    fn from_buffer(buffer: &BooleanBuffer) -> Mask {
        let chunks = buffer.bit_chunks();
        let words = chunks.iter_padded().take(buffer.len().div_ceil(64)).collect();
        Mask::from_words(words, buffer.len())
    }

    /// One bit for each row.
    pub(crate) fn into_words(self) -> Box<[u64]> {
        self.words.into()
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many of these rows it has.
    pub(crate) fn count_range(&self, rows: Range<usize>) -> usize {
        debug_assert!(rows.end <= self.rows);
        let words = self.words.iter().enumerate().take(rows.end.div_ceil(64)).skip(rows.start / 64);
        let counts = words.map(|(index, word)| {
            let (first, last) = (rows.start.saturating_sub(index * 64), (rows.end - index * 64).min(64));
            match first < last {
                true => (word & u64::MAX << first & u64::MAX >> (64 - last)).count_ones() as usize,
                false => 0,
            }
        });
        counts.sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count() == self.rows
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(crate) fn insert(&mut self, row: usize) {
        debug_assert!(row < self.rows);
        self.words[row / 64] |= 1 << (row % 64);
    }

    pub(crate) fn remove_range(&mut self, rows: Range<usize>) {
        debug_assert!(rows.end <= self.rows);
        for (index, word) in self.words.iter_mut().enumerate().take(rows.end.div_ceil(64)).skip(rows.start / 64) {
            let (first, last) = (rows.start.saturating_sub(index * 64), (rows.end - index * 64).min(64));
            if first < last {
                *word &= !(u64::MAX << first & u64::MAX >> (64 - last));
            }
        }
    }

    pub(crate) fn remove(&mut self, row: usize) {
        debug_assert!(row < self.rows);
        self.words[row / 64] &= !(1 << (row % 64));
    }

    /// Keeps the rows that `other` has, too.
    pub(crate) fn and(&mut self, other: &Mask) {
        debug_assert_eq!(self.rows, other.rows);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds the rows that `other` has.
    pub(crate) fn or(&mut self, other: &Mask) {
        debug_assert_eq!(self.rows, other.rows);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Keeps, of the rows from `at` (a multiple of 64) on that `other` speaks of, those it has.
    pub(crate) fn and_at(&mut self, at: usize, other: &Mask) {
        debug_assert!(at.is_multiple_of(64) && at + other.rows <= self.rows);
        let mut words = self.words[at / 64..].iter_mut().zip(&other.words);
        let tail = other.rows % 64;
        if tail > 0 && at + other.rows < self.rows {
            // Rows behind the other's last are none of its business.
            let last = other.words.len() - 1;
            words.by_ref().take(last).for_each(|(word, other)| *word &= other);
            words.for_each(|(word, other)| *word &= other | u64::MAX << tail);
            return;
        }
        words.for_each(|(word, other)| *word &= other);
    }

    /// Keeps the rows that are not NULL.
    pub(crate) fn and_valid(&mut self, nulls: Option<&NullBuffer>) {
        if let Some(nulls) = nulls {
            self.and_buffer(nulls.inner());
        }
    }

    fn and_buffer(&mut self, buffer: &BooleanBuffer) {
        debug_assert_eq!(self.rows, buffer.len());
        let chunks = buffer.bit_chunks();
        self.words.iter_mut().zip(chunks.iter_padded()).for_each(|(word, other)| *word &= other);
    }

    /// The rows this one does not have.
    pub(crate) fn inverted(mut self) -> Mask {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_tail();
        self
    }

    /// Keeps the k-th of the remaining rows if `kept` has row k.
    pub(crate) fn restrict(&mut self, kept: &Mask) {
        debug_assert_eq!(self.count(), kept.rows);
        if kept.rows == self.rows {
            self.words.copy_from_slice(&kept.words);
            return;
        }
        let mut next = 0;
        for word in &mut self.words {
            let count = word.count_ones() as usize;
            *word = deposit(kept.bits(next, count), *word);
            next += count;
        }
    }

    /// Up to 64 bits from one on, in the low bits.
    fn bits(&self, start: usize, count: usize) -> u64 {
        let (word, shift) = (start / 64, start % 64);
        let low = self.words.get(word).map_or(0, |word| word >> shift);
        let high = if shift > 0 { self.words.get(word + 1).map_or(0, |word| word << (64 - shift)) } else { 0 };
        if count < 64 { (low | high) & !(u64::MAX << count) } else { low | high }
    }

    /// Calls `visit` with each row, ascending.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize)) {
        for (index, word) in self.words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                visit(index * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }

    /// Calls `visit` with each run of rows, ascending.
    pub(crate) fn for_each_run(&self, visit: impl FnMut(Range<usize>)) {
        Mask::runs(&self.words, visit);
    }

    /// The same for bits that are part of a mask.
    pub(crate) fn runs(words: &[u64], mut visit: impl FnMut(Range<usize>)) {
        let mut run: Option<Range<usize>> = None;
        for (index, word) in words.iter().enumerate() {
            let (mut left, mut bit) = (*word, 0);
            while left != 0 {
                let skipped = left.trailing_zeros();
                bit += skipped;
                left >>= skipped;
                let length = left.trailing_ones();
                let start = index * 64 + bit as usize;
                match &mut run {
                    Some(run) if run.end == start => run.end += length as usize,
                    _ => {
                        if let Some(run) = run.replace(start..start + length as usize) {
                            visit(run);
                        }
                    }
                }
                bit += length;
                left = left.checked_shr(length).unwrap_or_default();
            }
        }
        if let Some(run) = run {
            visit(run);
        }
    }

    /// The rows' numbers, ascending.
    pub(crate) fn indices(&self) -> Vec<u32> {
        let mut rows = Vec::with_capacity(self.count());
        self.for_each(|row| rows.push(row as u32));
        rows
    }

    pub(crate) fn to_boolean(&self) -> BooleanArray {
        BooleanArray::new(BooleanBuffer::new(Buffer::from_vec(self.words.clone()), 0, self.rows), None)
    }

    fn clear_tail(&mut self) {
        if !self.rows.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.rows % 64)) - 1;
        }
    }
}

/// Puts the k-th lowest of `bits` where the k-th lowest set bit of `places` is: what processors call a bit deposit. `bits` has
/// no more bits than `places` has places.
fn deposit(bits: u64, places: u64) -> u64 {
    let (mut deposited, mut holes) = (bits, !places);
    if holes.count_ones() <= 32 {
        // Each hole moves what lies above it up by one.
        while holes != 0 {
            let below = (holes & holes.wrapping_neg()) - 1;
            deposited = deposited & below | (deposited & !below) << 1;
            holes &= holes - 1;
        }
        return deposited;
    }
    let (mut left, mut bits) = (places, bits);
    deposited = 0;
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        deposited |= lowest & (bits & 1).wrapping_neg();
        (left, bits) = (left ^ lowest, bits >> 1);
    }
    deposited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(mask: &Mask) -> Vec<u32> {
        mask.indices()
    }

    fn of(rows: usize, wanted: impl Fn(usize) -> bool) -> Mask {
        Mask::from_boolean(&(0..rows).map(|row| Some(wanted(row))).collect())
    }

    #[test]
    fn nothing_lies_behind_the_last_row() {
        for rows in [0, 1, 63, 64, 65, 127, 128, 8192] {
            let mask = Mask::all(rows);
            assert_eq!((mask.count(), mask.rows(), mask.is_full()), (rows, rows, true));
            let none = mask.inverted();
            assert_eq!((none.count(), none.is_empty()), (0, true));
            assert_eq!(none.inverted().count(), rows);
        }
    }

    #[test]
    fn null_is_not_true_and_offsets_are_heeded() {
        let array: BooleanArray =
            (0..200).map(|row| [Some(true), None, Some(false)][row % 3]).collect::<BooleanArray>().slice(7, 130);
        let expected: Vec<u32> = (0..130).filter(|row| (row + 7) % 3 == 0).collect();
        let mask = Mask::from_boolean(&array);
        assert_eq!(rows(&mask), expected);
        assert_eq!(Mask::from_boolean(&mask.to_boolean()), mask);
    }

    #[test]
    fn restricting_keeps_rows_by_their_rank() {
        // Miri takes a millisecond a row.
        let lengths: &[usize] = if cfg!(miri) { &[1, 64, 100] } else { &[1, 64, 100, 129, 300] };
        for &length in lengths {
            // Words that are full, with a hole, half full, nearly empty.
            for (modulus, wanted) in [(1, true), (100, false), (3, false), (2, true), (40, true)] {
                let mut mask = of(length, |row| (row % modulus == 0) == wanted);
                let before = rows(&mask);
                for step in [1, 2, 3] {
                    let mut mask = mask.clone();
                    mask.restrict(&of(before.len(), |rank| rank % step == 0));
                    assert_eq!(rows(&mask), before.iter().copied().step_by(step).collect::<Vec<u32>>());
                }
                mask.restrict(&of(before.len(), |_| false));
                assert!(mask.is_empty());
            }
        }
    }

    #[test]
    fn runs_are_maximal_and_ascend() {
        let lengths: &[usize] = if cfg!(miri) { &[1, 64, 130] } else { &[1, 63, 64, 65, 200, 1024] };
        for &length in lengths {
            for modulus in [1, 2, 7, 64, 100, 1000] {
                let mask = of(length, |row| row % modulus != 3 && row / modulus % 3 != 1);
                let (mut found, mut last) = (Vec::new(), None);
                mask.for_each_run(|run| {
                    assert!(!run.is_empty() && last.is_none_or(|last| last < run.start));
                    last = Some(run.end);
                    found.extend(run.map(|row| row as u32));
                });
                assert_eq!(found, rows(&mask), "{length} rows by {modulus}");
            }
        }
    }

    #[test]
    fn ranges_are_removed_at_any_place() {
        for (start, end) in [(0, 0), (0, 1), (0, 64), (3, 200), (63, 65), (64, 128), (100, 100), (0, 300), (299, 300)] {
            let mut mask = of(300, |row| row % 5 != 0);
            mask.remove_range(start..end);
            let expected: Vec<u32> =
                (0..300).filter(|row| row % 5 != 0 && !(start as u32..end as u32).contains(row)).collect();
            assert_eq!(of(300, |row| row % 5 != 0).count_range(start..end), 240 - expected.len(), "{start}..{end}");
            assert_eq!(rows(&mask), expected, "{start}..{end}");
        }
    }

    #[test]
    fn a_part_is_combined_and_the_rest_left_alone() {
        for length in [64, 70, 236] {
            let mut mask = of(300, |row| row % 2 == 0);
            mask.and_at(64, &of(length, |row| row % 3 == 0));
            let inside = |row: u32| (64..64 + length as u32).contains(&row);
            let expected: Vec<u32> =
                (0..300).filter(|row| row % 2 == 0 && (!inside(*row) || (row - 64) % 3 == 0)).collect();
            assert_eq!(rows(&mask), expected);
        }
    }

    #[test]
    fn sets_combine() {
        let mut mask = of(100, |row| row % 2 == 0);
        mask.and(&of(100, |row| row % 3 == 0));
        assert_eq!(rows(&mask), (0..100).filter(|row| row % 6 == 0).collect::<Vec<u32>>());
        mask.remove(6);
        assert!(!rows(&mask).contains(&6));
        let valid: NullBuffer = (0..100).map(|row| row >= 50).collect::<Vec<bool>>().into();
        mask.and_valid(Some(&valid));
        assert_eq!(rows(&mask), (50..100).filter(|row| row % 6 == 0).collect::<Vec<u32>>());
        mask.clear();
        assert!(mask.is_empty());
    }
}
