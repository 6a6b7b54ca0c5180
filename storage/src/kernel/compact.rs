//! Taking the wanted values of a block out, in their order, converted on the way.
//!
//! ```text
//!   values  a b c d e f g h …      64 at a time. None is left out: they are converted.
//!   words   1 1 0 1 1 0 1 1 …      A few are: what lies behind each moves up by one.     a b d e f g h · ─▶ a b d e g h · ·
//!                                  Many are: runs, 16 values each, the next run over what was too much.
//!                                  Most are: one by one.
//! ```
//! Copies of one length need no loop, and no branch that could go wrong but one for each value that is left out.

/// Values that belong to a word.
const WORD: usize = u64::BITS as usize;

/// With no more values of a word left out than this, each is closed by itself.
const HOLES_MAX: u32 = 6;

/// Values copied for a run, however short.
const COPIED: usize = 16;

/// With fewer wanted bits in a word than this, visiting them one by one is cheaper.
const SPARSE_BITS: u32 = 12;

/// Appends the values whose bits are set; `words` has a bit for each value, and none behind the last.
pub(crate) fn compact<S: Copy, T>(values: &[S], words: &[u64], out: &mut Vec<T>, convert: impl Fn(S) -> T) {
    debug_assert_eq!(values.len().div_ceil(WORD), words.len());
    let wanted: usize = words.iter().map(|word| word.count_ones() as usize).sum();
    if wanted == values.len() {
        out.extend(values.iter().map(|value| convert(*value)));
        return;
    }
    let Some(first) = values.first() else { return };
    // Copies of a constant length reach beyond the end; the last values have something to reach into, too.
    let (mut taken, mut last) = ([*first; 2 * WORD], [*first; 2 * WORD]);
    for (index, word) in words.iter().enumerate() {
        let rest = &values[WORD * index..];
        let values: &[S; 2 * WORD] = match rest.first_chunk() {
            Some(values) => values,
            None => {
                last[..rest.len()].copy_from_slice(rest);
                &last
            }
        };
        let ones = word.count_ones();
        if ones == u64::BITS {
            out.extend(values[..WORD].iter().map(|value| convert(*value)));
            continue;
        }
        if ones < SPARSE_BITS {
            let mut left = *word;
            while left != 0 {
                out.push(convert(values[left.trailing_zeros() as usize]));
                left &= left - 1;
            }
            continue;
        }
        if u64::BITS - ones <= HOLES_MAX {
            close_holes(values, *word, &mut taken);
        } else {
            copy_runs(values, *word, &mut taken);
        }
        // A constant number of them, for the same reason, if there is room; what is too much goes again.
        let end = out.len() + ones as usize;
        match out.len() + WORD <= out.capacity() {
            true => out.extend(taken[..WORD].iter().map(|value| convert(*value))),
            false => out.extend(taken[..ones as usize].iter().map(|value| convert(*value))),
        }
        out.truncate(end);
    }
}

/// Puts the values whose bits are set at the beginning of `taken`.
#[inline]
fn close_holes<S: Copy>(values: &[S; 2 * WORD], word: u64, taken: &mut [S; 2 * WORD]) {
    taken[..WORD].copy_from_slice(&values[..WORD]);
    let (mut holes, mut closed) = (!word, 0);
    while holes != 0 {
        let hole = holes.trailing_zeros() as usize;
        taken[hole - closed..hole - closed + WORD].copy_from_slice(&values[hole + 1..hole + 1 + WORD]);
        closed += 1;
        holes &= holes - 1;
    }
}

/// The same, run by run.
#[inline]
fn copy_runs<S: Copy>(values: &[S; 2 * WORD], word: u64, taken: &mut [S; 2 * WORD]) {
    let (mut left, mut end) = (word, 0);
    while left != 0 {
        let start = left.trailing_zeros() as usize;
        let length = (left >> start).trailing_ones() as usize;
        for copied in (0..length).step_by(COPIED) {
            let from = &values[start + copied..start + copied + COPIED];
            taken[end + copied..end + copied + COPIED].copy_from_slice(from);
        }
        end += length;
        left = if start + length < WORD { left >> (start + length) << (start + length) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::kernel::Mask;

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
        let lengths: &[usize] =
            if cfg!(miri) { &[0, 1, 64, 130] } else { &[0, 1, 2, 63, 64, 65, 127, 128, 1000, 1024, 8191, 8192] };
        for &length in lengths {
            let narrow: Vec<u32> = (0..length as u32).map(|row| row.wrapping_mul(2_654_435_761)).collect();
            let wide: Vec<u128> = narrow.iter().map(|value| u128::from(*value) << 64 | 7).collect();
            check(&narrow, |_| true);
            check(&narrow, |_| false);
            let percents: &[u32] = if cfg!(miri) { &[3, 50, 96] } else { &[1, 3, 5, 10, 25, 50, 75, 90, 95, 97, 99] };
            for &percent in percents {
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
