//! Many keys at once: collected in any order, sorted once, and then handed out in order.
//!
//! ```text
//!   keys that came in order    nothing to do
//!   others                     the eight bytes behind what all have in common, as a number ─▶ radix sort
//!                              ─▶ equal ones by the rest of their keys ─▶ keys and things moved into that order
//! ```
//! Everything that follows reads keys and things one after the other, so moving them once, in a loop that does nothing else,
//! is cheaper than finding each by its number later.

use super::search::common_length;

/// Below this many, comparing is cheaper than counting bytes.
const RADIX_MIN: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Item<T> {
    start: usize,
    length: u32,
    thing: T,
}

/// Keys with a thing each.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    bytes: Vec<u8>,
    items: Vec<Item<T>>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch { bytes: Vec::new(), items: Vec::new() }
    }
}

/// A key's number and the position of its item.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    head: u64,
    item: u32,
}

/// The first eight bytes behind `skipped` as a number that compares like them; missing ones count as zero.
fn head_of(key: &[u8], skipped: usize) -> u64 {
    super::search::head_of(key.get(skipped..).unwrap_or_default())
}

impl<T: Copy> Batch<T> {
    /// Adds the key that `encode` appends to the buffer, with the thing that it returns.
    pub(crate) fn push<E>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> Result<(), E> {
        let start = self.bytes.len();
        let thing = encode(&mut self.bytes)?;
        self.items.push(Item { start, length: (self.bytes.len() - start) as u32, thing });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Brings the keys into ascending order; of equal ones only the last stays. There are at most 2³² of them.
    pub(crate) fn sort(&mut self) {
        let in_order = (1..self.len()).all(|position| self.key(position - 1) < self.key(position));
        if in_order {
            return;
        }
        let first = self.key(0);
        let shared = (1..self.len()).fold(first.len(), |shared, position| {
            let (first, key) = (&first[..shared], self.key(position));
            if key.starts_with(first) { shared } else { common_length(first, key) }
        });
        let head = |item: usize| Head { head: head_of(self.key(item), shared), item: item as u32 };
        let mut heads: Vec<Head> = (0..self.len()).map(head).collect();
        if heads.len() < RADIX_MIN {
            heads.sort_by_key(|head| head.head)
        } else {
            radix_sort(&mut heads)
        }
        let mut start = 0;
        while start < heads.len() {
            let ties = heads[start..].iter().take_while(|other| other.head == heads[start].head).count();
            if ties > 1 {
                // Stable, so that equal keys stay in the order they came.
                let key = |head: &Head| self.key(head.item as usize);
                heads[start..start + ties].sort_by(|left, right| key(left).cmp(key(right)));
            }
            start += ties;
        }
        let (mut bytes, mut items) = (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(heads.len()));
        for (position, head) in heads.iter().enumerate() {
            let (item, key) = (self.items[head.item as usize], self.key(head.item as usize));
            let is_last = heads
                .get(position + 1)
                .is_none_or(|next| next.head != head.head || self.key(next.item as usize) != key);
            if is_last {
                items.push(Item { start: bytes.len(), ..item });
                bytes.extend_from_slice(key);
            }
        }
        (self.bytes, self.items) = (bytes, items);
    }

    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let item = &self.items[position];
        &self.bytes[item.start..][..item.length as usize]
    }

    pub(crate) fn thing(&self, position: usize) -> &T {
        &self.items[position].thing
    }

    /// The things, in the order they are in.
    pub(crate) fn things_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().map(|item| &mut item.thing)
    }

    /// Keys and things, in the order they are in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.items.iter().map(|item| (&self.bytes[item.start..][..item.length as usize], &item.thing))
    }

    /// The first position from `from` on whose key is at least `key`; the keys are in order.
    pub(crate) fn lower_bound(&self, key: &[u8], from: usize) -> usize {
        let later = &self.items[from..];
        from + later.partition_point(|item| &self.bytes[item.start..][..item.length as usize] < key)
    }
}

/// Sorts by the numbers, one byte after the other from the lowest on, passing over bytes that all have in common; equal
/// numbers stay in the order they came.
fn radix_sort(heads: &mut Vec<Head>) {
    let mut counts = [[0_usize; 256]; size_of::<u64>()];
    for head in heads.iter() {
        for (counts, byte) in counts.iter_mut().zip(head.head.to_le_bytes()) {
            counts[byte as usize] += 1;
        }
    }
    let mut sorted = vec![Head::default(); heads.len()];
    let all = heads.len();
    for (digit, counts) in counts.iter().enumerate().filter(|(_, counts)| !counts.contains(&all)) {
        let mut places = [0; 256];
        let mut next = 0;
        for (place, count) in places.iter_mut().zip(counts) {
            *place = next;
            next += count;
        }
        for head in heads.iter() {
            let place = &mut places[(head.head >> (8 * digit)) as usize & 0xFF];
            sorted[*place] = *head;
            *place += 1;
        }
        std::mem::swap(heads, &mut sorted);
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
        for seed in 0..90_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut batch, mut twin) = (Batch::default(), BTreeMap::new());
            let prefix: Vec<u8> = (0..seed % 20).map(|_| 7).collect();
            // Few different bytes make long ties, many make none.
            let highest: u8 = [1, 3, u8::MAX][seed as usize % 3];
            let is_ascending = seed % 10 == 9;
            for thing in 0..random.random_range(0..4 * RADIX_MIN as u32) {
                let mut key = prefix.clone();
                match is_ascending {
                    true => key.extend(thing.to_be_bytes()),
                    false => key.extend((0..random.random_range(0..22)).map(|_| random.random_range(0..=highest))),
                }
                let encoded = batch.push(|bytes| {
                    bytes.extend_from_slice(&key);
                    Ok::<u32, ()>(thing)
                });
                encoded.unwrap();
                twin.insert(key, thing);
                if random.random_bool(0.001) {
                    batch.sort();
                }
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
