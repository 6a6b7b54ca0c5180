//! Things by the numbers of tables or indexes, only ever added.
//!
//! ```text
//!   buckets   [ 0 ][ 1 ][ 2 ] …          by the low bits of the number
//!                └─▶ 65 ─▶ 1             each once, for as long as the whole lives
//! ```
//! Every look-up of a key begins here, on all cores at once. As nothing is ever taken away, finding a thing takes no lock and
//! counts nobody: cores that look for the same one write nothing.

use std::sync::OnceLock;

/// The rest of a bucket.
type Next<T> = OnceLock<Box<Entry<T>>>;

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    thing: T,
    next: Next<T>,
}

#[derive(Debug)]
pub(super) struct Numbered<T, const BUCKETS: usize> {
    buckets: [Next<T>; BUCKETS],
}

impl<T, const BUCKETS: usize> Default for Numbered<T, BUCKETS> {
    fn default() -> Self {
        Numbered { buckets: [const { OnceLock::new() }; BUCKETS] }
    }
}

impl<T, const BUCKETS: usize> Numbered<T, BUCKETS> {
    fn bucket(&self, number: u64) -> &Next<T> {
        &self.buckets[number as usize % BUCKETS]
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let mut next = self.bucket(number).get();
        while let Some(found) = next {
            if found.number == number {
                return Some(&found.thing);
            }
            next = found.next.get();
        }
        None
    }

    /// The thing with a number, made if there is none, and whether it was made. Who comes while it is made waits.
    pub(super) fn get_or_add(&self, number: u64, make: impl FnOnce() -> T) -> (&T, bool) {
        let mut make = Some(make);
        let mut next = self.bucket(number);
        loop {
            let mut is_new = false;
            let found = next.get_or_init(|| {
                is_new = true;
                let make = make.take().expect("a place that was made is this number's");
                Box::new(Entry { number, thing: make(), next: OnceLock::new() })
            });
            if found.number == number {
                return (&found.thing, is_new);
            }
            next = &found.next;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let entries =
            self.buckets.iter().flat_map(|first| std::iter::successors(first.get(), |entry| entry.next.get()));
        entries.map(|entry| (entry.number, &entry.thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_thing() {
        let things = Numbered::<u64, 8>::default();
        for round in [true, false] {
            for number in 0..300 {
                assert_eq!(things.get_or_add(number, || number * 3), (&(number * 3), round));
            }
        }
        assert!((0..300).all(|number| things.get(number) == Some(&(number * 3))));
        assert_eq!(things.get(300), None);
        let mut numbers: Vec<u64> = things.iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..300).collect::<Vec<u64>>());
    }

    #[test]
    fn who_adds_at_the_same_time_gets_the_same_thing() {
        let things = Numbered::<u64, 2>::default();
        let found: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4)
                .map(|adder| {
                    let things = &things;
                    scope.spawn(move || (0..200).map(|number| *things.get_or_add(number, || adder).0).collect())
                })
                .collect();
            adders.into_iter().map(|adder| adder.join().unwrap()).collect()
        });
        assert!(found.iter().all(|other| *other == found[0]));
    }
}
