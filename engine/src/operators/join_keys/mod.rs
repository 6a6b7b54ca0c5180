//! The keys of a join's build side, one bit each, for the scan of the other side to ask.
//!
//! ```text
//!   HashJoinExec  o_orderkey = l_orderkey
//!    ├─ CoalescePartitionsExec
//!    │   └─ JoinKeysExec ── each partition's keys ──► bits 0 0 1 0 1 1 0 …   key - least key
//!    │       └─ …                                              │
//!    └─ ColumnScanExec lineitem ◄── rows whose bit is set ─────┘
//! ```
//!
//! DataFusion gives a join's probe side the hash table itself to ask, which takes 5 to 10 ns a row: that was half of the time of
//! TPC-H's query 17, and 40 % of query 4's. Keys are mostly integers of a range that is not much larger than their number, and a
//! megabyte of bits holds eight million of them: a lookup is a shift and a load from the second-level cache.
//!
//! A join on several columns has bits for each of them, which spare most rows the hash table.
//!
//! * Advice, like every dynamic filter: rows without a partner need not be dropped. So nothing is published where the range is too
//!   long ([`BITS_MAX`], [`BITS_PER_KEY_MAX`]) or memory too short, and the scan asks the hash table then.
//! * The bits are complete before the join is: the last partition publishes them at its end, after which the join makes its
//!   table known. If one never ends, nothing is published.
//! * One execution: the rule that makes these operators ([`crate::optimizer`]) runs anew for each.

mod exec;

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type,
};
use arrow::error::ArrowError;
use datafusion::execution::memory_pool::MemoryReservation;
use parking_lot::Mutex;
use rustydb_storage::RowPredicate;

use super::direct_aggregate::KeyDomain;

pub(crate) use exec::JoinKeysExec;

/// 8 MiB: beyond this, bits are not in any cache that is near.
const BITS_MAX: u64 = 1 << 26;
/// A longer range than this is for hash tables, unless ...
const BITS_PER_KEY_MAX: u64 = 2_048;
/// ... it is so short that it stays in the cache, anyway: 128 KiB.
const BITS_SMALL: u64 = 1 << 20;

/// For each key of a join, what is told of it; `None` if bits cannot.
pub(crate) type KeyColumns = Vec<Option<Arc<JoinKeys>>>;

/// What a join's build side tells the scan of its probe side, about one of its keys.
#[derive(Debug, Default)]
pub(crate) struct JoinKeys {
    /// Keys of the partitions that have ended; `None` before the first begins, and when all are put together or do not suit.
    collected: Mutex<Option<Collected>>,
    set: OnceLock<KeySet>,
}

#[derive(Debug)]
struct Collected {
    partitions_left: usize,
    set: KeySet,
}

impl JoinKeys {
    /// Makes room for the keys of so many partitions, whose bits are accounted to `memory`. The first call counts.
    fn expect(&self, partitions: usize, memory: impl FnOnce() -> MemoryReservation) {
        let mut collected = self.collected.lock();
        if collected.is_none() && self.set.get().is_none() {
            *collected = Some(Collected { partitions_left: partitions, set: KeySet::none(memory()) });
        }
    }

    /// Adds the keys of a partition. The last one makes the set known.
    fn add(&self, keys: &Keys) {
        if self.collected.lock().is_none() {
            return;
        }
        // Bits are set without the lock: partitions do that side by side.
        let part = keys.bits();
        let mut collected = self.collected.lock();
        let Some(known) = collected.as_mut() else { return };
        known.partitions_left = known.partitions_left.saturating_sub(1);
        let last = known.partitions_left == 0;
        let fits = part.is_some_and(|part| known.set.merge(part));
        if !fits || last {
            let all = collected.take().filter(|all| fits && all.set.suits());
            // Nobody else comes last.
            let _ = all.map(|all| self.set.set(all.set));
        }
    }

    /// Whether keys of this type can be told by bits.
    pub(crate) fn supports(data_type: &DataType) -> bool {
        KeyDomain::numbers(data_type)
    }

    /// All keys, if they are known and suit.
    pub(crate) fn set(&self) -> Option<&KeySet> {
        self.set.get()
    }
}

/// Runs `$body` with `$array` as the primitive array it is; `None` for types that are no keys.
macro_rules! with_integers {
    ($array:ident => $body:expr) => {
        match $array.data_type() {
            DataType::Int8 => with_integers!($array, Int8Type, $body),
            DataType::Int16 => with_integers!($array, Int16Type, $body),
            DataType::Int32 => with_integers!($array, Int32Type, $body),
            DataType::Int64 => with_integers!($array, Int64Type, $body),
            DataType::UInt8 => with_integers!($array, UInt8Type, $body),
            DataType::UInt16 => with_integers!($array, UInt16Type, $body),
            DataType::UInt32 => with_integers!($array, UInt32Type, $body),
            DataType::Date32 => with_integers!($array, Date32Type, $body),
            _ => None,
        }
    };
    ($array:ident, $type:ty, $body:expr) => {{
        let $array = $array.as_primitive::<$type>();
        Some($body)
    }};
}

/// Keys of a partition, as they came.
#[derive(Debug, Default)]
struct Keys {
    arrays: Vec<ArrayRef>,
    range: Option<(i64, i64)>,
}

impl Keys {
    /// Notes keys; bounds are found now, while the values are in the cache.
    fn note(&mut self, array: ArrayRef) {
        if let Some(Some((low, high))) = with_integers!(array => bounds(array)) {
            self.range = Some(self.range.map_or((low, high), |known| (known.0.min(low), known.1.max(high))));
        }
        self.arrays.push(array);
    }

    /// The bits of all keys that are not NULL. None if their range is too long, or they are no keys.
    fn bits(&self) -> Option<Bits> {
        let mut bits = Bits::of_range(self.range)?;
        for array in &self.arrays {
            bits.keys += (array.len() - array.null_count()) as u64;
            with_integers!(array => bits.insert_all(array))?;
        }
        Some(bits)
    }
}

/// Bits of a range that begins at a multiple of 64, so that two of them can be put together word by word.
#[derive(Debug, Default)]
struct Bits {
    low: i64,
    words: Vec<u64>,
    /// How many keys were put in, copies included.
    keys: u64,
}

impl Bits {
    /// Without a range there is no bit.
    fn of_range(range: Option<(i64, i64)>) -> Option<Bits> {
        let Some((low, high)) = range else { return Some(Bits::default()) };
        let low = low.div_euclid(64) * 64;
        let words = (high.wrapping_sub(low) as u64) / 64 + 1;
        (words <= BITS_MAX / 64).then(|| Bits { low, words: vec![0; words as usize], keys: 0 })
    }

    /// The last value there is a bit for.
    fn high(&self) -> Option<i64> {
        let values = self.words.len() as i64 * 64;
        (values > 0).then(|| self.low + (values - 1))
    }

    fn insert_all<T: ArrowPrimitiveType<Native: Into<i64>>>(&mut self, array: &PrimitiveArray<T>) {
        let (low, words) = (self.low, self.words.as_mut_slice());
        let mut insert = |value: T::Native| {
            let offset = value.into().wrapping_sub(low) as u64;
            words[(offset / 64) as usize] |= 1 << (offset % 64);
        };
        match array.null_count() {
            0 => array.values().iter().for_each(|value| insert(*value)),
            _ => array.iter().flatten().for_each(insert),
        }
    }

    /// Both together. None if that is too long a range.
    fn with(self, other: Bits) -> Option<Bits> {
        let keys = self.keys + other.keys;
        let (mut all, part) = match (self.high(), other.high()) {
            (_, None) => (self, other),
            (None, _) => (other, self),
            (Some(high), Some(other_high)) => {
                let range = (self.low.min(other.low), high.max(other_high));
                match range == (self.low, high) {
                    true => (self, other),
                    false => (Bits::of_range(Some(range))?.with(self)?, other),
                }
            }
        };
        let start = (part.low.wrapping_sub(all.low) as u64 / 64) as usize;
        all.words.iter_mut().skip(start).zip(&part.words).for_each(|(word, more)| *word |= more);
        Some(Bits { keys, ..all })
    }
}

/// A set of integers.
#[derive(Debug)]
pub(crate) struct KeySet {
    bits: Bits,
    memory: MemoryReservation,
}

impl KeySet {
    fn none(memory: MemoryReservation) -> KeySet {
        KeySet { bits: Bits::default(), memory }
    }

    /// Whether there was room for the keys of another partition, which are in it then.
    fn merge(&mut self, bits: Bits) -> bool {
        let merged = std::mem::take(&mut self.bits).with(bits);
        let merged = merged.filter(|bits| self.memory.try_resize(bits.words.len() * size_of::<u64>()).is_ok());
        merged.map(|bits| self.bits = bits).is_some()
    }

    /// Whether bits are the form for so many keys of such a range.
    fn suits(&self) -> bool {
        let bits = self.bits.words.len() as u64 * 64;
        bits <= BITS_SMALL || bits / self.bits.keys.max(1) <= BITS_PER_KEY_MAX
    }

    /// For each value whether it is in the set; NULL is not. None for types that are no keys.
    pub(crate) fn contains(&self, array: &ArrayRef) -> Option<BooleanArray> {
        with_integers!(array => self.contains_values(array))
    }

    fn contains_values<T: ArrowPrimitiveType<Native: Into<i64>>>(&self, array: &PrimitiveArray<T>) -> BooleanArray {
        let (values, words, low) = (array.values(), self.bits.words.as_slice(), self.bits.low);
        let found = BooleanBuffer::collect_bool(values.len(), |row| {
            let offset = values[row].into().wrapping_sub(low) as u64;
            words.get((offset / 64) as usize).is_some_and(|word| word >> (offset % 64) & 1 == 1)
        });
        match array.nulls() {
            None => BooleanArray::new(found, None),
            Some(nulls) => BooleanArray::new(&found & nulls.inner(), None),
        }
    }
}

fn bounds<T: ArrowNumericType<Native: Into<i64>>>(array: &PrimitiveArray<T>) -> Option<(i64, i64)> {
    Some((min(array)?.into(), max(array)?.into()))
}

/// Rows of a scan whose column is among a join's keys.
#[derive(Debug)]
pub(crate) struct KeyPredicate {
    columns: [usize; 1],
    keys: Arc<JoinKeys>,
}

impl KeyPredicate {
    pub(crate) fn new(column: usize, keys: Arc<JoinKeys>) -> Self {
        KeyPredicate { columns: [column], keys }
    }
}

impl RowPredicate for KeyPredicate {
    fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanArray, ArrowError> {
        let found = columns.first().zip(self.keys.set()).and_then(|(column, set)| set.contains(column));
        Ok(found.unwrap_or_else(|| BooleanArray::new(BooleanBuffer::new_set(rows), None)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::{Date32Array, Int8Array, Int32Array, Int64Array, StringArray, UInt32Array};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool};

    use super::*;

    fn memory(bytes: Option<usize>) -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = match bytes {
            None => Arc::new(UnboundedMemoryPool::default()),
            Some(bytes) => Arc::new(GreedyMemoryPool::new(bytes)),
        };
        MemoryConsumer::new("test").register(&pool)
    }

    /// What partitions with these keys make known.
    fn told(partitions: Vec<Vec<ArrayRef>>, memory: MemoryReservation) -> Option<KeySet> {
        let keys = JoinKeys::default();
        keys.expect(partitions.len(), || memory);
        for arrays in partitions {
            assert!(keys.set().is_none(), "not before the last one");
            let mut part = Keys::default();
            arrays.into_iter().for_each(|array| part.note(array));
            keys.add(&part);
        }
        keys.set.into_inner()
    }

    fn set(arrays: Vec<ArrayRef>) -> Option<KeySet> {
        let apart = told(arrays.iter().map(|array| vec![Arc::clone(array)]).chain([vec![]]).collect(), memory(None));
        let together = told(vec![arrays], memory(None));
        assert_eq!(apart.as_ref().map(|set| &set.bits.words), together.as_ref().map(|set| &set.bits.words));
        together
    }

    fn found(set: &KeySet, array: ArrayRef) -> Vec<bool> {
        set.contains(&array).unwrap().iter().map(|found| found.unwrap()).collect()
    }

    #[test]
    fn a_set_has_what_was_put_into_it_and_nothing_else() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = |below: i64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 1) as i64 % below
        };
        for (low, span, keys) in
            [(0, 1, 1), (-70, 64, 20), (1 << 40, 100_000, 3_000), (i64::MIN, 129, 40), (i64::MAX - 63, 64, 9)]
        {
            let values: Vec<Option<i64>> =
                (0..keys).map(|_| (next(10) > 0).then(|| low.wrapping_add(next(span)))).collect();
            let twin: HashSet<i64> = values.iter().flatten().copied().collect();
            let (one, other) = values.split_at(values.len() / 2);
            let arrays: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(one.to_vec())), Arc::new(Int64Array::from(other.to_vec()))];
            let set = set(arrays).unwrap();
            let asked: Vec<Option<i64>> = (-130..span + 130)
                .map(|offset| low.wrapping_add(offset))
                .chain([i64::MIN, i64::MAX, 0, -1])
                .map(Some)
                .chain([None])
                .collect();
            let expected: Vec<bool> = asked.iter().map(|key| key.is_some_and(|key| twin.contains(&key))).collect();
            assert!(found(&set, Arc::new(Int64Array::from(asked))) == expected, "{low} + {span}");
        }
    }

    #[test]
    fn keys_of_all_types_are_told_by_value() {
        let set = set(vec![Arc::new(Int32Array::from(vec![Some(-3), None, Some(100)]))]).unwrap();
        assert_eq!(
            found(&set, Arc::new(Int8Array::from(vec![Some(-3), Some(100), Some(4), None]))),
            [true, true, false, false]
        );
        assert_eq!(found(&set, Arc::new(UInt32Array::from(vec![100, u32::MAX, u32::MAX - 2]))), [true, false, false]);
        assert_eq!(found(&set, Arc::new(Date32Array::from(vec![-3, -2]))), [true, false]);
        assert!(set.contains(&(Arc::new(StringArray::from(vec!["-3"])) as ArrayRef)).is_none());
    }

    #[test]
    fn no_keys_are_a_set_without_any_and_long_ranges_are_none() {
        let none = set(vec![Arc::new(Int64Array::from(vec![None, None]))]).unwrap();
        assert_eq!(found(&none, Arc::new(Int64Array::from(vec![0, 1, -1]))), [false; 3]);
        assert_eq!(found(&set(vec![]).unwrap(), Arc::new(Int64Array::from(vec![0]))), [false]);
        let two = |low: i64, high: i64| set(vec![Arc::new(Int64Array::from(vec![low, high]))]);
        assert!(two(i64::MIN, i64::MAX).is_none() && two(0, 1 << 26).is_none());
        assert!(two(0, 1 << 24).is_none(), "two keys in sixteen million");
        assert!(two(5, 1 << 19).is_some());
        let array: ArrayRef = Arc::new(Int64Array::from(vec![0, 1 << 19]));
        assert!(told(vec![vec![array]], memory(Some(1_000))).is_none(), "no memory");
    }
}
