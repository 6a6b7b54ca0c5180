//! Many keys at once: collected in any order, sorted once, and then handed out in order.
//!
//! What is sorted are numbers: the first sixteen bytes behind what all keys have in common. Keys lie one behind the other
//! in one buffer and are read only where those numbers are equal.

use super::search::common_length;

#[derive(Debug)]
struct Item<T> {
    head: u128,
    start: u32,
    length: u32,
    thing: T,
}

/// Keys with a thing each.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    bytes: Vec<u8>,
    items: Vec<Item<T>>,
    /// How many bytes all keys have in common at their beginnings.
    shared: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch { bytes: Vec::new(), items: Vec::new(), shared: usize::MAX }
    }
}

/// The first sixteen bytes as a number that compares like them; missing ones count as zero.
fn head_of(tail: &[u8]) -> u128 {
    match tail.first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 16];
            bytes[..tail.len()].copy_from_slice(tail);
            u128::from_be_bytes(bytes)
        }
    }
}

impl<T> Batch<T> {
    /// Adds the key that `encode` appends to the buffer, with the thing that it returns. The buffer must not become
    /// larger than 4 GiB.
    pub(crate) fn push<E>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> Result<(), E> {
        let start = self.bytes.len();
        let thing = encode(&mut self.bytes)?;
        let key = &self.bytes[start..];
        if self.shared > 0 {
            let first = self.items.first().map_or(key, |first| &self.bytes[..first.length as usize]);
            self.shared = common_length(first, key).min(self.shared);
        }
        self.items.push(Item { head: 0, start: start as u32, length: key.len() as u32, thing });
        Ok(())
    }

    /// Memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * size_of::<Item<T>>()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Brings the keys into ascending order; of equal ones only the last stays.
    pub(crate) fn sort(&mut self) {
        let Batch { bytes, items, shared } = self;
        for item in items.iter_mut() {
            let key = &bytes[item.start as usize..][..item.length as usize];
            item.head = head_of(&key[*shared..]);
        }
        let key = |item: &Item<T>| &bytes[item.start as usize..][..item.length as usize];
        // Stable, and fast where keys came in order already.
        items.sort_by(|left, right| left.head.cmp(&right.head).then_with(|| key(left).cmp(key(right))));
        items.dedup_by(|later, earlier| {
            let same = later.head == earlier.head && key(later) == key(earlier);
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }

    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let item = &self.items[position];
        &self.bytes[item.start as usize..][..item.length as usize]
    }

    pub(crate) fn thing(&self, position: usize) -> &T {
        &self.items[position].thing
    }

    /// Keys and things, in the order they are in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        (0..self.len()).map(|position| (self.key(position), self.thing(position)))
    }

    /// The first position from `from` on whose key is at least `key`; the keys are in order.
    pub(crate) fn lower_bound(&self, key: &[u8], from: usize) -> usize {
        let later = &self.items[from..];
        from + later.partition_point(|item| &self.bytes[item.start as usize..][..item.length as usize] < key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn keys_come_out_in_order_and_the_last_of_equal_ones_counts() {
        for seed in 0..60_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut batch, mut twin) = (Batch::default(), BTreeMap::new());
            let prefix: Vec<u8> = (0..seed % 20).map(|_| 7).collect();
            for thing in 0..random.random_range(0..500_u32) {
                let mut key = prefix.clone();
                key.extend((0..random.random_range(0..22)).map(|_| random.random_range(0..2_u8)));
                let encoded = batch.push(|bytes| {
                    bytes.extend_from_slice(&key);
                    Ok::<u32, ()>(thing)
                });
                encoded.unwrap();
                twin.insert(key, thing);
            }
            batch.sort();
            let sorted: Vec<(Vec<u8>, u32)> = batch.iter().map(|(key, thing)| (key.to_vec(), *thing)).collect();
            assert_eq!(sorted, twin.into_iter().collect::<Vec<_>>(), "seed {seed}");
            let (middle, from) = (sorted.len() / 2, sorted.len() / 3);
            if let Some((key, _)) = sorted.get(middle) {
                assert_eq!(batch.lower_bound(key, from), middle);
            }
        }
    }
}
