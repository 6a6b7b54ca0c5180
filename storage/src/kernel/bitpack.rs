//! Unsigned integers of a few bits each, packed.
//!
//! ```text
//!  group of 1024 values, seen as 32 rows of 32 lanes, value i = row i / 32, lane i % 32
//!
//!            lane 0   lane 1   …  lane 31
//!  word row 0 [ 32 bits: the lowest `width` bits are row 0's value, the next row 1's, … ]
//!  word row 1 [ a value may begin in one word row and end in the next                   ]
//!  …          `width` word rows in all
//! ```
//! This is the vertical layout of SIMD-BP128 (Lemire and Boytsov, "Decoding billions of integers per second through
//! vectorization", 2015), 32 lanes wide: all lanes are shifted by the same number of bits, so the loops over lanes
//! vectorise for any register width, values come out in their order, and one value can be read alone.

/// Values of a group.
const GROUP: usize = 1024;
const LANES: usize = 32;

/// Packed integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Bits of a value, 1 to 32.
    width: u32,
    /// `width * LANES` words for each group; the last group is filled up with zeros.
    words: Box<[u32]>,
    values: usize,
}

/// Bits needed for a number.
pub(crate) fn bits_of(value: u32) -> u32 {
    u32::BITS - value.leading_zeros()
}

impl Packed {
    /// Memory of this many values of this many bits.
    pub(crate) fn size_bytes(width: u32, values: usize) -> usize {
        values.div_ceil(GROUP) * width as usize * LANES * size_of::<u32>()
    }

    /// Packs values of at most `width` bits, 1 to 32.
    pub(crate) fn pack(values: &[u32], width: u32) -> Packed {
        assert!((1..=u32::BITS).contains(&width), "{width} bits");
        debug_assert!(values.iter().all(|value| bits_of(*value) <= width));
        let mut words = vec![0; values.len().div_ceil(GROUP) * width as usize * LANES];
        for (group, packed) in values.chunks(GROUP).zip(words.chunks_exact_mut(width as usize * LANES)) {
            for (row, lanes) in group.chunks(LANES).enumerate() {
                let (word, shift) = place(row, width);
                for (lane, value) in lanes.iter().enumerate() {
                    packed[word * LANES + lane] |= value << shift;
                    if shift + width > u32::BITS {
                        packed[(word + 1) * LANES + lane] |= value >> (u32::BITS - shift);
                    }
                }
            }
        }
        Packed { width, words: words.into(), values: values.len() }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// One value.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> u32 {
        debug_assert!(index < self.values);
        let (group, index) = (index / GROUP, index % GROUP);
        let (word, shift) = place(index / LANES, self.width);
        let at = (group * self.width as usize + word) * LANES + index % LANES;
        let low = self.words[at] >> shift;
        let value = match shift + self.width > u32::BITS {
            true => low | self.words[at + LANES] << (u32::BITS - shift),
            false => low,
        };
        value & mask(self.width)
    }

    /// Calls `visit` with one group after the other; the last may be shorter.
    pub(crate) fn for_each_group(&self, mut visit: impl FnMut(&[u32])) {
        let mut out = [0; GROUP];
        for (index, packed) in self.words.chunks_exact(self.width as usize * LANES).enumerate() {
            unpack_group(packed, self.width, &mut out);
            visit(&out[..GROUP.min(self.values - index * GROUP)]);
        }
    }
}

/// The word row and the bit in it at which a row's values begin.
fn place(row: usize, width: u32) -> (usize, u32) {
    let bit = row * width as usize;
    (bit / u32::BITS as usize, (bit % u32::BITS as usize) as u32)
}

fn mask(width: u32) -> u32 {
    u32::MAX >> (u32::BITS - width)
}

fn unpack_group(packed: &[u32], width: u32, out: &mut [u32; GROUP]) {
    let mask = mask(width);
    let (words, _) = packed.as_chunks::<LANES>();
    let (rows, _) = out.as_chunks_mut::<LANES>();
    for (row, out) in rows.iter_mut().enumerate() {
        let (word, shift) = place(row, width);
        let low = &words[word];
        if shift + width <= u32::BITS {
            for (value, low) in out.iter_mut().zip(low) {
                *value = low >> shift & mask;
            }
        } else {
            let high = &words[word + 1];
            for ((value, low), high) in out.iter_mut().zip(low).zip(high) {
                *value = (low >> shift | high << (u32::BITS - shift)) & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    impl Packed {
        fn unpack(&self) -> Vec<u32> {
            let mut values = Vec::new();
            self.for_each_group(|group| values.extend_from_slice(group));
            values
        }
    }

    #[test]
    fn every_width_and_odd_lengths_come_back() {
        // Miri takes seconds for what the processor does in milliseconds.
        let lengths: &[usize] =
            if cfg!(miri) { &[0, 1, 33, 1025] } else { &[0, 1, 31, 32, 33, 1023, 1024, 1025, 2500, 8192] };
        for width in 1..=32 {
            for &length in lengths {
                let values: Vec<u32> =
                    (0..length as u32).map(|index| index.wrapping_mul(2_654_435_761) & mask(width)).collect();
                let packed = Packed::pack(&values, width);
                assert_eq!(packed.unpack(), values, "{width} bits, {length} values");
                assert_eq!(packed.memory_bytes(), Packed::size_bytes(width, length));
            }
        }
    }

    #[test]
    fn the_highest_value_of_every_width_fits() {
        for width in 1..=32 {
            assert_eq!(bits_of(mask(width)), width);
            let values = vec![mask(width); 100];
            assert_eq!(Packed::pack(&values, width).unpack(), values);
        }
        assert_eq!(bits_of(0), 0);
    }

    #[test]
    fn one_value_read_alone_is_that_of_all() {
        let mut random = StdRng::seed_from_u64(7);
        for width in 1..=32 {
            let length = random.random_range(1..if cfg!(miri) { 100 } else { 3000 });
            let values: Vec<u32> = (0..length).map(|_| random.random::<u32>() & mask(width)).collect();
            let packed = Packed::pack(&values, width);
            for (index, value) in values.iter().enumerate() {
                assert_eq!(packed.get(index), *value, "value {index} of {length}, {width} bits");
            }
        }
    }
}
