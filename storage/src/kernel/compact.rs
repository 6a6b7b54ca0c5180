//! Taking the wanted values of a block out, in their order, converted on the way.
//!
//! ```text
//!   values  a b c d e f g h …      few are left out: copy what lies between them, run by run
//!   words   1 1 0 1 1 1 1 1 …      more are: 64 values at a time, always 16 for a run, the next run over what was too much.
//!                                  Copies of one length need no loop, and most runs no branch that could go wrong.
//! ```

use super::Mask;

/// With less than one value in this many left out, copying runs is cheaper.
const RUNS_SHARE: usize = 24;

/// Values copied for a run, however short.
const COPIED: usize = 16;

/// With fewer wanted bits in a word than this, visiting them one by one is cheaper.
const SPARSE_BITS: u32 = 12;

/// Appends the values whose bits are set; `words` has a bit for each value, and none behind the last.
pub(crate) fn compact<S: Copy, T>(values: &[S], words: &[u64], out: &mut Vec<T>, convert: impl Fn(S) -> T) {
    debug_assert_eq!(values.len().div_ceil(64), words.len());
    let wanted: usize = words.iter().map(|word| word.count_ones() as usize).sum();
    if wanted == values.len() {
        out.extend(values.iter().map(|value| convert(*value)));
        return;
    }
    if (values.len() - wanted) * RUNS_SHARE < values.len() {
        Mask::runs(words, |run| out.extend(values[run].iter().map(|value| convert(*value))));
        return;
    }
    let Some(first) = values.first() else { return };
    let mut taken = [*first; 64 + COPIED];
    for (index, word) in words.iter().enumerate() {
        let values = &values[64 * index..];
        let mut left = *word;
        if left.count_ones() < SPARSE_BITS || values.len() < 64 + COPIED {
            while left != 0 {
                out.push(convert(values[left.trailing_zeros() as usize]));
                left &= left - 1;
            }
            continue;
        }
        let mut end = 0;
        while left != 0 {
            let start = left.trailing_zeros() as usize;
            let length = (left >> start).trailing_ones() as usize;
            for copied in (0..length).step_by(COPIED) {
                let from = &values[start + copied..start + copied + COPIED];
                taken[end + copied..end + copied + COPIED].copy_from_slice(from);
            }
            end += length;
            left = if start + length < 64 { left >> (start + length) << (start + length) } else { 0 };
        }
        // A constant number of them, for the same reason, if there is room; what is too much goes again.
        let wanted = out.len() + end;
        let copied = if out.len() + 64 <= out.capacity() { 64 } else { end };
        out.extend(taken[..copied].iter().map(|value| convert(*value)));
        out.truncate(wanted);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check<S: Copy + std::fmt::Debug + PartialEq>(values: &[S], wanted: impl Fn(usize) -> bool) {
        let mut mask = Mask::all(values.len()).inverted();
        (0..values.len()).filter(|row| wanted(*row)).for_each(|row| mask.insert(row));
        let twin: Vec<(S, u8)> =
            values.iter().enumerate().filter(|(row, _)| wanted(*row)).map(|(_, value)| (*value, 1)).collect();
        let mut out = vec![(values.first().copied(), 0); 3];
        compact(values, mask.words(), &mut out, |value| (Some(value), 1));
        let found: Vec<(S, u8)> = out[3..].iter().map(|(value, tag)| (value.unwrap(), *tag)).collect();
        assert_eq!(found, twin);
    }

    #[test]
    fn every_density_and_length_gives_what_one_by_one_would() {
        let mut random = StdRng::seed_from_u64(11);
        for length in [0, 1, 2, 63, 64, 65, 127, 128, 1000, 1024, 8191, 8192] {
            let narrow: Vec<u32> = (0..length as u32).map(|row| row.wrapping_mul(2_654_435_761)).collect();
            let wide: Vec<u128> = narrow.iter().map(|value| u128::from(*value) << 64 | 7).collect();
            check(&narrow, |_| true);
            check(&narrow, |_| false);
            for percent in [1, 3, 5, 10, 25, 50, 75, 90, 95, 97, 99] {
                let bits: Vec<bool> = (0..length).map(|_| random.random_range(0..100) < percent).collect();
                check(&narrow, |row| bits[row]);
                check(&wide, |row| bits[row]);
            }
            for every in [2, 7, 64, 100, 1000] {
                check(&narrow, |row| row % every != 0);
                check(&narrow, |row| row % every == 0);
            }
        }
    }
}
