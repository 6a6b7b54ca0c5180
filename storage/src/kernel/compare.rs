//! Comparisons of many values with constants, into a [`Mask`].
//!
//! ```text
//!   values  v0 v1 … v63 ──test──▶ bytes 0/1 ──× 0x0102040810204080 >> 56──▶ 8 bits per 8 bytes ──▶ one word
//! ```
//! Two steps, because each vectorises or nearly so: the comparison writes one byte per value, and a multiplication
//! gathers the lowest bits of eight bytes (no carry can occur: every partial product has its own bit).

use super::Mask;

/// The rows whose value passes `test`. `test` must be cheap and free of branches to be vectorised.
pub(crate) fn select<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Mask {
    let mut words = Vec::with_capacity(values.len().div_ceil(64));
    let mut chunks = values.chunks_exact(64);
    let mut bytes = [0_u8; 64];
    for chunk in &mut chunks {
        for (byte, value) in bytes.iter_mut().zip(chunk) {
            *byte = u8::from(test(*value));
        }
        words.push(pack(&bytes));
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        bytes.fill(0);
        for (byte, value) in bytes.iter_mut().zip(rest) {
            *byte = u8::from(test(*value));
        }
        words.push(pack(&bytes));
    }
    Mask::from_words(words, values.len())
}

/// Bit `i` is byte `i`, which is 0 or 1.
fn pack(bytes: &[u8; 64]) -> u64 {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().enumerate().fold(0, |word, (index, eight)| {
        word | (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * index)
    })
}

/// An integer type whose values can be compared with an inclusive range in two instructions.
pub(crate) trait Ranged: Copy {
    /// The rows with `low <= value <= high`, bounds given in the common domain of all integers.
    fn select_range(values: &[Self], low: i128, high: i128) -> Mask;
}

macro_rules! ranged {
    ($($signed:ty, $unsigned:ty);*) => { $(
        impl Ranged for $signed {
            fn select_range(values: &[Self], low: i128, high: i128) -> Mask {
                let low = low.max(i128::from(<$signed>::MIN));
                let high = high.min(i128::from(<$signed>::MAX));
                if low > high {
                    return Mask::all(values.len()).inverted();
                }
                // One subtraction maps the range to 0..=span in unsigned arithmetic, whatever the signs.
                let (low, span) = (low as $signed, (high - low) as $unsigned);
                select(values, |value| value.wrapping_sub(low) as $unsigned <= span)
            }
        }
    )* };
}

ranged!(i8, u8; i16, u16; i32, u32; i64, u64);

macro_rules! ranged_unsigned {
    ($($type:ty),*) => { $(
        impl Ranged for $type {
            fn select_range(values: &[Self], low: i128, high: i128) -> Mask {
                let (low, high) = (low.max(0), high.min(i128::from(<$type>::MAX)));
                if low > high {
                    return Mask::all(values.len()).inverted();
                }
                let (low, span) = (low as $type, (high - low) as $type);
                select(values, |value| value.wrapping_sub(low) <= span)
            }
        }
    )* };
}

ranged_unsigned!(u8, u16, u32, u64);

impl Ranged for i128 {
    fn select_range(values: &[Self], low: i128, high: i128) -> Mask {
        select(values, |value| (value >= low) & (value <= high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Vec<u32> {
        values.iter().enumerate().filter(|(_, value)| test(**value)).map(|(row, _)| row as u32).collect()
    }

    #[test]
    fn the_mask_is_what_the_test_says_at_every_length() {
        let lengths: Vec<u32> =
            if cfg!(miri) { vec![0, 1, 63, 64, 65, 200] } else { (0..200).chain([8191, 8192]).collect() };
        for length in lengths {
            let values: Vec<u32> = (0..length).map(|row| row.wrapping_mul(2_654_435_761) % 7).collect();
            assert_eq!(select(&values, |value| value < 3).indices(), twin(&values, |value| value < 3), "{length}");
        }
    }

    #[test]
    fn bytes_become_bits_in_order() {
        for bit in 0..64 {
            let mut bytes = [0; 64];
            bytes[bit] = 1;
            assert_eq!(pack(&bytes), 1 << bit);
        }
        assert_eq!(pack(&[1; 64]), u64::MAX);
    }

    fn check_ranges<T: Ranged + Into<i128> + std::fmt::Debug>(values: &[T]) {
        let mut edges: Vec<i128> = values.iter().map(|value| (*value).into()).collect();
        edges.extend([i128::MIN, i128::MAX, 0, 1, -1, i128::from(u64::MAX), i128::from(i64::MIN)]);
        // Miri takes its time: of the pairs only some, and others for each lower end.
        let step = if cfg!(miri) { 3 } else { 1 };
        for (first, low) in edges.iter().enumerate() {
            for high in edges.iter().skip(first % step).step_by(step) {
                let expected = twin(values, |value| (*low..=*high).contains(&value.into()));
                assert_eq!(T::select_range(values, *low, *high).indices(), expected, "{low}..={high} of {values:?}");
            }
        }
    }

    #[test]
    fn ranges_are_exact_at_the_edges_of_every_type() {
        check_ranges(&[i8::MIN, -1, 0, 1, i8::MAX]);
        check_ranges(&[i16::MIN, -1, 0, 1, i16::MAX]);
        check_ranges(&[i32::MIN, -1, 0, 1, i32::MAX]);
        check_ranges(&[i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX]);
        check_ranges(&[u8::MIN, 1, 127, 128, u8::MAX]);
        check_ranges(&[u16::MIN, 1, u16::MAX]);
        check_ranges(&[u32::MIN, 1, u32::MAX]);
        check_ranges(&[u64::MIN, 1, 1 << 63, u64::MAX]);
        check_ranges(&[i128::MIN, -1, 0, 1, i128::MAX]);
    }
}
