//! The tree against the standard library's ordered map, on keys that share prefixes, ends and heads.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::leaf::{LEAF_KEYS, Stamped};
use super::tree::{Tree, TreeBuilder};

/// The tests count their steps in the values.
impl Stamped for u64 {
    fn stamp(&self) -> u64 {
        *self
    }

    fn has_ended(&self) -> bool {
        !self.is_multiple_of(2)
    }
}

/// Keys of few different bytes, so that many are prefixes of others, differ in trailing zeros, or share 8 bytes and more.
fn random_key(random: &mut StdRng, style: u32) -> Vec<u8> {
    match style {
        0 => random.random_range(0..100_000_u64).to_be_bytes().to_vec(),
        1 => {
            let parts = [7, random.random_range(0..3_u32), random.random_range(0..500), random.random_range(0..15)];
            parts.iter().flat_map(|part| part.to_be_bytes()).collect()
        }
        2 => (0..random.random_range(0..14)).map(|_| random.random_range(0..2)).collect(),
        _ => {
            let mut key = b"a prefix that is longer than any that is left out of the heads/".to_vec();
            key.extend((0..random.random_range(0..20)).map(|_| b"xyz"[random.random_range(0..3)]));
            key
        }
    }
}

fn random_bound(random: &mut StdRng, style: u32) -> Bound<Vec<u8>> {
    match random.random_range(0..5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(random_key(random, style)),
        _ => Bound::Excluded(random_key(random, style)),
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn walked(
    tree: &Tree<u64>,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    descending: bool,
    limit: usize,
) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    // Odd values have ended.
    let even = |value: &u64| value.is_multiple_of(2).then_some(*value);
    tree.walk(bounds, descending, u64::MAX, even, |key, value| {
        found.push((key.to_vec(), value));
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

fn compare_walks(tree: &Tree<u64>, twin: &BTreeMap<Vec<u8>, u64>, random: &mut StdRng, style: u32) {
    let (low, high) = (random_bound(random, style), random_bound(random, style));
    let is_inside = |key: &Vec<u8>| {
        let above = match &low {
            Bound::Included(low) => key >= low,
            Bound::Excluded(low) => key > low,
            Bound::Unbounded => true,
        };
        let below = match &high {
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
            Bound::Unbounded => true,
        };
        above && below
    };
    let limit = if random.random_bool(0.5) { random.random_range(1..100) } else { usize::MAX };
    let inside = || twin.iter().filter(|(key, value)| is_inside(key) && value.is_multiple_of(2));
    let ascending: Vec<_> = inside().take(limit).map(|(key, value)| (key.clone(), *value)).collect();
    let descending: Vec<_> = inside().rev().take(limit).map(|(key, value)| (key.clone(), *value)).collect();
    let bounds = (as_slice(&low), as_slice(&high));
    assert_eq!(walked(tree, bounds, false, limit), ascending, "ascending, {low:?} to {high:?}");
    assert_eq!(walked(tree, bounds, true, limit), descending, "descending, {low:?} to {high:?}");
    let since = random.random_range(0..7000);
    let mut changed = Vec::new();
    tree.walk_since(
        since,
        bounds,
        |value| Some(*value),
        |key, value| {
            changed.push((key.to_vec(), value));
            ControlFlow::Continue(())
        },
    );
    let younger = twin.iter().filter(|(key, value)| is_inside(key) && **value > since);
    assert_eq!(changed, younger.map(|(key, value)| (key.clone(), *value)).collect::<Vec<_>>(), "after {since}");
}

#[test]
fn the_tree_is_an_ordered_map() {
    for seed in 0..24 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let style = seed as u32 % 4;
        let mut twin: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut tree = Tree::default();
        if seed % 3 == 0 {
            twin.extend((0..random.random_range(0..3000)).map(|value| (random_key(&mut random, style), value)));
            let mut builder = TreeBuilder::default();
            twin.iter().for_each(|(key, value)| builder.push(key, *value));
            tree = builder.finish();
        }
        for step in 0..6000_u64 {
            let key = random_key(&mut random, style);
            if random.random_bool(0.7) {
                let before = tree.change(&key, |value| match value {
                    Some(value) => (None, Some(std::mem::replace(value, step))),
                    None => (Some(step), None),
                });
                assert_eq!(before, twin.insert(key, step));
            } else {
                assert_eq!(tree.get(&key, |value| *value), twin.get(&key).copied(), "{key:?}");
            }
            if step % 1000 == 999 {
                // Many neighbours end, so that whole leaves have.
                let (one, other) = (random_key(&mut random, style), random_key(&mut random, style));
                let range = one.clone().min(other.clone())..=one.max(other);
                for (key, value) in twin.range_mut(range) {
                    *value = step;
                    tree.change(key, |value| (None, value.map(|value| *value = step)));
                }
            }
            if step % 500 == 0 {
                compare_walks(&tree, &twin, &mut random, style);
            }
        }
        for _ in 0..20 {
            compare_walks(&tree, &twin, &mut random, style);
        }
    }
}

#[test]
fn a_key_that_is_only_looked_for_is_not_put_in() {
    let tree: Tree<u64> = Tree::default();
    assert!(tree.change(b"k", |value| (None, value.is_none())));
    assert_eq!(tree.get(b"k", |value| *value), None);
}

#[test]
fn ascending_keys_fill_their_leaves_wherever_they_come_in() {
    // Two ascending series, the first of which comes in between the second one's keys and those before it.
    let tree: Tree<u64> = Tree::default();
    for number in 0..10_000_u64 {
        for series in [1_u64, 2] {
            tree.change(&[series.to_be_bytes(), number.to_be_bytes()].concat(), |_| (Some(number), ()));
        }
    }
    let leaves = tree.leaf_count();
    assert!(leaves < 20_000 * 10 / 9 / 64, "{leaves} leaves");
}

#[test]
fn what_has_ended_in_a_queue_is_passed_over_leaf_by_leaf() {
    let tree: Tree<u64> = Tree::default();
    let key = |number: u64| number.to_be_bytes();
    (0..10_000).for_each(|number| tree.change(&key(number), |_| (Some(0), ())));
    for number in (0..4_000).chain(6_000..10_000) {
        tree.change(&key(number), |value| (None, value.map(|value| *value = 7)));
    }
    for (descending, first) in [(false, 4_000), (true, 5_999)] {
        for (as_of, looks_max) in [(7, 3 * LEAF_KEYS), (6, 10_000)] {
            let (mut looks, mut found) = (0, None);
            let keep = |value: &u64| {
                looks += 1;
                (*value == 0).then_some(())
            };
            tree.walk((Bound::Unbounded, Bound::Unbounded), descending, as_of, keep, |key, ()| {
                found = Some(key.to_vec());
                ControlFlow::Break(())
            });
            assert_eq!(found, Some(key(first).to_vec()));
            assert!(looks <= looks_max, "{looks} looks as of {as_of}");
        }
    }
}

#[test]
fn threads_that_put_keys_in_at_once_find_all_of_them() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 20_000;
    let tree: Tree<u64> = Tree::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let tree = &tree;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(thread);
                for number in 0..KEYS {
                    // Neighbours belong to different threads.
                    let key = (number.wrapping_mul(7919) % KEYS * THREADS + thread).to_be_bytes();
                    tree.change(&key, |_| (Some(number), ()));
                    let earlier = random.random_range(0..=number).wrapping_mul(7919) % KEYS * THREADS + thread;
                    assert!(tree.get(&earlier.to_be_bytes(), |_| ()).is_some(), "{earlier} was put in before");
                }
            });
        }
    });
    let all = |_: &u64| Some(());
    let mut next = 0_u64;
    tree.walk((Bound::Unbounded, Bound::Unbounded), false, 0, all, |key, ()| {
        assert_eq!(key, next.to_be_bytes());
        next += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(next, THREADS * KEYS);
}
