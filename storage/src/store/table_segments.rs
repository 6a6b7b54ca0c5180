//! The segments of a table, as a version has them, and the look-up of a key in all of them.
//!
//! A key may be in any segment whose range it lies in, and a table that is written to has some. Each look into one is a cache
//! miss ([`crate::segment`], the hash table of its keys). Here they are asked at the same time: the key indexes of all
//! segments are kept in one list, as long as the cache keeps them, and the line of each that may have the key is asked for
//! before the first is looked at.

use std::hint::black_box;
use std::ops::Deref;
use std::sync::Arc;

use rustydb_txn::Timestamp;

use super::Segments;
use crate::column_cache::{Assembled, Assembly};
use crate::error::Result;
use crate::segment::{KeyHash, KeyIndex, Segment};

/// The key indexes of all segments, in their order.
type KeyIndexes = Box<[Arc<KeyIndex>]>;

/// A segment, and the number of a row in it.
type Place<'a> = (&'a Arc<Segment>, u32);

/// Segments of one table.
#[derive(Debug, Clone)]
pub(crate) struct TableSegments {
    segments: Segments,
    keys: Arc<Assembled<KeyIndexes>>,
}

impl From<Segments> for TableSegments {
    fn from(segments: Segments) -> Self {
        let keys = Arc::<Assembled<KeyIndexes>>::default();
        let assembly: Arc<dyn Assembly> = Arc::clone(&keys) as Arc<dyn Assembly>;
        segments.iter().for_each(|segment| segment.key_slot().join(Arc::downgrade(&assembly)));
        TableSegments { segments, keys }
    }
}

impl FromIterator<Arc<Segment>> for TableSegments {
    fn from_iter<I: IntoIterator<Item = Arc<Segment>>>(segments: I) -> Self {
        segments.into_iter().collect::<Segments>().into()
    }
}

impl Deref for TableSegments {
    type Target = [Arc<Segment>];

    fn deref(&self) -> &[Arc<Segment>] {
        &self.segments
    }
}

impl TableSegments {
    /// The segment and the row in it that has the key with this hash, among the rows not deleted at `timestamp`. `None`: not all
    /// key indexes that it takes are in memory.
    pub(super) fn find(&self, key: &[u8], hash: KeyHash, timestamp: Timestamp) -> Result<Option<Option<Place<'_>>>> {
        let may_have = |segment: &Segment| segment.created() <= timestamp && segment.meta.may_contain(key);
        let is_live = |segment: &Segment, row: u32| !segment.deletes.contains(row, timestamp);
        // Newest first: recent rows are asked for more often. At most one segment holds a live row of the key.
        let list = self.keys.load();
        let made;
        let all = match list.as_deref() {
            Some(all) => Some(all),
            None => {
                made = self.key_indexes();
                made.as_deref()
            }
        };
        let Some(all) = all else {
            for segment in self.segments.iter().rev().filter(|segment| may_have(segment)) {
                let Some(found) = segment.with_key_index(|keys| keys.find(key, hash)) else { return Ok(None) };
                if let Some(row) = found?.filter(|row| is_live(segment, *row)) {
                    return Ok(Some(Some((segment, row))));
                }
            }
            return Ok(Some(None));
        };
        let candidates = || self.segments.iter().zip(all).rev().filter(|(segment, _)| may_have(segment));
        black_box(candidates().fold(0, |seen, (_, keys)| seen ^ keys.touch(hash)));
        for (segment, keys) in candidates() {
            segment.key_slot().note_use();
            if let Some(row) = keys.find(key, hash)?.filter(|row| is_live(segment, *row)) {
                return Ok(Some(Some((segment, row))));
            }
        }
        Ok(Some(None))
    }

    /// The key indexes, if all of them are in memory; kept for the next who asks.
    fn key_indexes(&self) -> Option<Arc<KeyIndexes>> {
        let all: KeyIndexes = self.segments.iter().map(|segment| segment.key_slot().kept()).collect::<Option<_>>()?;
        let all = Arc::new(all);
        self.keys.offer(&all, || self.segments.iter().all(|segment| segment.key_slot().is_kept()));
        Some(all)
    }
}
