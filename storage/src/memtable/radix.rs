//! Sorting by a number that is spread out.
//!
//! Byte by byte from the lowest on, a few bits of each record's number at a time: each pass reads the records in order and
//! writes each where its bits belong. The highest bits, a few more than it takes to number the records, leave hardly any
//! neighbours that have them in common, whatever there is below; those few are compared.

/// Below this many, comparing is cheaper than counting.
const COUNTED_MIN: usize = 256;

/// Bits of a pass: more would write to more places at the same time than the nearest cache holds.
const PASS_BITS_MAX: u32 = 11;

/// Sorts records. Their order is that of `code`, a number of so many `bits`, and then whatever theirs says. `other` is room.
pub(super) fn sort<R: Copy + Ord + Default>(
    records: &mut Vec<R>,
    other: &mut Vec<R>,
    bits: u32,
    code: impl Fn(&R) -> u64,
) {
    let count = records.len();
    if count < COUNTED_MIN || bits == 0 {
        return records.sort_unstable();
    }
    let passes = bits.min(count.ilog2() + 3).div_ceil(PASS_BITS_MAX);
    let width = bits.min(passes * PASS_BITS_MAX).div_ceil(passes);
    let (sorted_bits, digits) = (bits.min(passes * width), 1 << width);
    other.resize(count, R::default());
    let mut places = vec![0_u32; digits * passes as usize];
    let first_shift = bits - sorted_bits;
    for record in records.iter() {
        let code = code(record) >> first_shift;
        for (pass, counts) in places.chunks_exact_mut(digits).enumerate() {
            counts[(code >> (pass as u32 * width)) as usize & (digits - 1)] += 1;
        }
    }
    for (pass, places) in places.chunks_exact_mut(digits).enumerate() {
        let mut next = 0;
        for place in places.iter_mut() {
            next += std::mem::replace(place, next);
        }
        let shift = first_shift + pass as u32 * width;
        for record in records.iter() {
            let place = &mut places[(code(record) >> shift) as usize & (digits - 1)];
            other[*place as usize] = *record;
            *place += 1;
        }
        std::mem::swap(records, other);
    }
    // Passes keep the order of equal records, which is theirs only if they came in it: neighbours are compared in any case.
    let mut start = 0;
    while start < count {
        let high = code(&records[start]) >> first_shift;
        let end = start + records[start..].iter().take_while(|record| code(record) >> first_shift == high).count();
        if end - start > 1 && !records[start..end].is_sorted() {
            records[start..end].sort_unstable();
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn any_numbers_come_in_order() {
        for seed in 0..200_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let count = random.random_range(0..20 * COUNTED_MIN);
            let bits = random.random_range(0..60);
            // Some of them are all the same but for their lowest bits.
            let range = if seed % 4 == 0 { bits.min(3) } else { bits };
            let mut records: Vec<(u64, u32)> =
                (0..count).map(|_| (random.random_range(0..1_u64 << range), random.random_range(0..5))).collect();
            let mut expected = records.clone();
            expected.sort_unstable();
            sort(&mut records, &mut Vec::new(), bits, |record| record.0);
            assert!(records == expected, "seed {seed}");
        }
    }
}
