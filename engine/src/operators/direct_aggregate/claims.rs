//! Who adds up which part of a range of keys: spares partitions the merging of what only one of them has seen.
//!
//! Tables come in key order, and each partition of a scan reads segments of its own. So where the key is that of the table,
//! or its first column, a page of slots is nearly always filled by one partition:
//!
//! ```text
//!   pages of keys   0 0 0 0 0 0 | 1 1 1 1 1 1        number: the partition that came first with a batch of few pages
//!   partition 0     ▓ ▓ ▓ ▓ ▓ ▓                      its own groups: complete, but for what follows
//!   partition 1               ▒   ▓ ▓ ▓ ▓ ▓ ▓        ▒ a page of somebody else's: kept apart, and merged at the end
//! ```
//!
//! A batch is either one's own, if all pages between its least and its greatest key are, or kept apart as a whole. Keys
//! without order make batches that span many pages; these claim nothing, and all is kept apart and merged.
//!
//! Invariant: groups of a claimed page are among its owner's own, and among those that anybody kept apart; nowhere else.

use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type};
use datafusion::error::Result;

/// Keys that are claimed together.
const PAGE_KEYS: u64 = 4096;
/// A batch that spans more pages has its keys in no order that would be worth claiming.
const BATCH_PAGES_MAX: u64 = 64;

/// The owners of the pages of `low..low + span`.
#[derive(Debug)]
pub(super) struct Claims {
    low: i64,
    span: u64,
    /// A partition's number + 1, or 0 where nobody has been.
    owners: Vec<AtomicU32>,
}

impl Claims {
    /// None where the range is so short that a batch tells nothing about the order of its keys: merging costs little then.
    pub(super) fn new(low: i64, span: u64) -> Option<Self> {
        let pages = span.div_ceil(PAGE_KEYS);
        (pages > 4 * BATCH_PAGES_MAX).then(|| Claims {
            low,
            span,
            owners: (0..pages).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    /// Whether all pages that `keys` may touch are the partition's, now at the latest.
    pub(super) fn claim(&self, partition: usize, keys: &ArrayRef) -> Result<bool> {
        let Some((least, greatest)) = bounds(keys)? else { return Ok(false) };
        let (Some(first), Some(last)) = (self.page(least), self.page(greatest)) else { return Ok(false) };
        if last as u64 - first as u64 >= BATCH_PAGES_MAX {
            return Ok(false);
        }
        let me = partition as u32 + 1;
        let is_mine = |owner: &AtomicU32| {
            // Nothing is handed over by an owner's number: groups are by the tasks' ends.
            match owner.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                Err(owner) => owner == me,
            }
        };
        Ok(self.owners[first..=last].iter().all(is_mine))
    }

    /// The owner of a key's page.
    pub(super) fn owner(&self, key: i64) -> Option<usize> {
        let owner = self.owners[self.page(key)?].load(Ordering::Relaxed);
        owner.checked_sub(1).map(|partition| partition as usize)
    }

    fn page(&self, key: i64) -> Option<usize> {
        let offset = key.wrapping_sub(self.low) as u64;
        (offset < self.span).then_some((offset / PAGE_KEYS) as usize)
    }
}

/// The least and the greatest of keys without NULLs.
fn bounds(keys: &ArrayRef) -> Result<Option<(i64, i64)>> {
    if keys.is_empty() || keys.null_count() > 0 {
        return Ok(None);
    }
    Ok(match keys.data_type() {
        DataType::Int64 => least_and_greatest(keys.as_primitive::<Int64Type>().values()),
        DataType::Int32 => least_and_greatest(keys.as_primitive::<Int32Type>().values()),
        DataType::Date32 => least_and_greatest(keys.as_primitive::<Date32Type>().values()),
        _ => least_and_greatest(cast(keys, &DataType::Int64)?.as_primitive::<Int64Type>().values()),
    })
}

/// In one pass, several values at a time.
fn least_and_greatest<T: Copy + Ord + Into<i64>>(values: &[T]) -> Option<(i64, i64)> {
    const LANES: usize = 8;
    let first = *values.first()?;
    let (mut least, mut greatest) = ([first; LANES], [first; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            least[lane] = least[lane].min(chunk[lane]);
            greatest[lane] = greatest[lane].max(chunk[lane]);
        }
    }
    let all = || least.into_iter().chain(greatest).chain(rest.iter().copied());
    Some((all().min()?.into(), all().max()?.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array};

    use super::*;

    fn claim(claims: &Claims, partition: usize, keys: impl IntoIterator<Item = i64>) -> bool {
        claims.claim(partition, &(Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef)).unwrap()
    }

    #[test]
    fn a_page_is_of_whoever_came_first() {
        let claims = Claims::new(-5, 2_000_000).unwrap();
        assert!(claim(&claims, 1, 0..10_000));
        assert!(claim(&claims, 1, [3, 5_000, 3]));
        assert!(!claim(&claims, 0, 9_000..20_000), "the first of these pages is not its own");
        assert!(claim(&claims, 0, 20_000..30_000));
        assert_eq!(
            [0, 9_999, 25_000, 900_000, -6, 2_000_000].map(|key| claims.owner(key)),
            [Some(1), Some(1), Some(0), None, None, None]
        );
        assert_eq!(claims.owner(i64::MIN), None);
    }

    #[test]
    fn what_is_spread_or_beyond_the_range_or_null_is_not_claimed() {
        let claims = Claims::new(0, 1 << 30).unwrap();
        assert!(!claim(&claims, 0, [1, 1 << 29]));
        assert!(!claim(&claims, 0, [-1, 1]) && !claim(&claims, 0, [1 << 30]) && !claim(&claims, 0, []));
        let nulls: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        assert!(!claims.claim(0, &nulls).unwrap());
        assert_eq!(claims.owner(1), None, "nothing of all that claims a page");
        assert!(Claims::new(0, 1_000_000).is_none());
    }
}
