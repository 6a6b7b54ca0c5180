//! Which rows of a segment are gone, and since when.
//!
//! A base bitmap of the rows that every open snapshot sees as deleted, and a short list of younger deletes with their
//! commit timestamps. What a snapshot sees is a prefix of that list on top of the base:
//!
//! ```text
//!   base {3, 17, 90}   recent (ts 7, row 5) (ts 9, row 40) │ (ts 12, row 8)
//!   └────────────── a reader at 11: 2 of them ─────────────┘
//!                        ▼ made once, kept for the next reader that sees as many
//!   DeletedRows   block 0: words of 64 bits   block 1: –   block 2: words   …
//! ```
//! So a scan works out nothing: it takes the words of a block as they are for the rows it leaves out. A segment without
//! deletes, and a block without, cost it nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use crate::BLOCK_ROWS;
use crate::id_map::IdMap;
use crate::kernel::Mask;
use crate::sync::{Mutex, RwLock};

/// Young deletes are folded into the base when there are this many more, if the watermark allows it for a good part of them.
const FOLD_THRESHOLD: usize = 256;

/// Sets kept for readers to come: the newest, and what a transaction that has been open for a while sees.
const KEPT_MAX: usize = 2;

const BLOCK_WORDS: usize = BLOCK_ROWS / u64::BITS as usize;

/// One bit for each row of a block.
type BlockWords = [u64; BLOCK_WORDS];

/// The rows of one segment that are deleted for one reader.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DeletedRows {
    rows: RoaringBitmap,
    /// The same block by block; `None`, or the end of the list: no row of the block is deleted.
    blocks: Vec<Option<Arc<BlockWords>>>,
}

impl DeletedRows {
    fn new(rows: RoaringBitmap) -> DeletedRows {
        let mut deleted = DeletedRows::default();
        deleted.add(&rows.iter().collect::<Vec<u32>>());
        deleted
    }

    fn add(&mut self, rows: &[u32]) {
        self.rows.extend(rows.iter().copied());
        for row in rows {
            let (block, row) = (*row as usize / BLOCK_ROWS, *row as usize % BLOCK_ROWS);
            if self.blocks.len() <= block {
                self.blocks.resize(block + 1, None);
            }
            let words = self.blocks[block].get_or_insert_with(|| Arc::new([0; BLOCK_WORDS]));
            Arc::make_mut(words)[row / 64] |= 1 << (row % 64);
        }
    }

    /// These and others.
    pub(crate) fn with(&self, others: &RoaringBitmap) -> DeletedRows {
        let mut all = self.clone();
        all.add(&others.iter().collect::<Vec<u32>>());
        all
    }

    /// The rows, in one bitmap.
    pub(crate) fn rows(&self) -> &RoaringBitmap {
        &self.rows
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() as usize
    }

    /// The rows of a block, of which there are so many, that are not deleted.
    pub(crate) fn live(&self, block: usize, rows: usize) -> Mask {
        match self.blocks.get(block) {
            Some(Some(deleted)) => {
                let words = deleted[..rows.div_ceil(64)].iter().map(|word| !word);
                Mask::from_words(words.collect(), rows)
            }
            _ => Mask::all(rows),
        }
    }

    fn memory_bytes(&self) -> usize {
        let words = self.blocks.iter().flatten().count() * size_of::<BlockWords>();
        self.rows.serialized_size() + self.blocks.capacity() * size_of::<usize>() + words
    }
}

#[derive(Debug, Default)]
struct State {
    base: Arc<RoaringBitmap>,
    /// In order of their timestamps.
    recent: Vec<(Timestamp, u32)>,
    /// The same by row, for look-ups.
    recent_rows: IdMap<u32, Timestamp>,
}

/// The base with the first so many recent deletes, ready for scans.
#[derive(Debug, Clone)]
struct Kept {
    recent: usize,
    rows: Arc<DeletedRows>,
}

/// What one reader sees of the deletes, for a moment.
pub(crate) struct Seen<'a> {
    state: &'a State,
    timestamp: Timestamp,
}

impl Seen<'_> {
    pub(crate) fn is_deleted(&self, row: u32) -> bool {
        self.state.base.contains(row) || self.is_deleted_lately(row)
    }

    fn is_deleted_lately(&self, row: u32) -> bool {
        self.state.recent_rows.get(&row).is_some_and(|deleted| *deleted <= self.timestamp)
    }

    /// The first `wanted` of adjacent rows, or the last ones, that are not deleted and that `is_wanted`. Rows of a queue
    /// go from one end of it, so the way to the first that is left may be long; nothing is looked for on it.
    pub(crate) fn live(
        &self,
        rows: Range<u32>,
        descending: bool,
        wanted: usize,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        if rows.is_empty() {
            return Vec::new();
        }
        let mut live = Vec::new();
        let mut deleted = self.state.base.range(rows.clone());
        let is_left = |row: &u32| !self.is_deleted_lately(*row) && is_wanted(*row);
        // From one run of deleted rows to the next.
        let Range { mut start, mut end } = rows;
        while start < end && live.len() < wanted {
            let missing = wanted - live.len();
            if descending {
                let (behind, next) =
                    deleted.next_range_back().map_or((start, start), |run| (run.end() + 1, *run.start()));
                live.extend((behind..end).rev().filter(is_left).take(missing));
                end = next;
            } else {
                let (before, next) = deleted.next_range().map_or((end, end), |run| (*run.start(), run.end() + 1));
                live.extend((start..before).filter(is_left).take(missing));
                start = next;
            }
        }
        live
    }
}

/// The versioned delete set of one segment.
#[derive(Debug, Default)]
pub(crate) struct DeleteSet {
    state: RwLock<State>,
    any: AtomicBool,
    /// At most [`KEPT_MAX`], the one used last at the end. Locked behind `state`.
    kept: Mutex<Vec<Kept>>,
}

impl DeleteSet {
    /// A set whose `rows` were deleted before any snapshot that can be open.
    pub(crate) fn with_base(rows: RoaringBitmap) -> Self {
        let any = AtomicBool::new(!rows.is_empty());
        DeleteSet {
            state: RwLock::new(State { base: Arc::new(rows), ..State::default() }),
            any,
            kept: Mutex::default(),
        }
    }

    /// Records the delete of a row. Commits come in any order, but none at or before the watermark.
    pub(crate) fn add(&self, row: u32, timestamp: Timestamp, watermark: Timestamp) {
        let mut state = self.state.write();
        let younger = state.recent.iter().rev().take_while(|(other, _)| *other > timestamp).count();
        let place = state.recent.len() - younger;
        state.recent.insert(place, (timestamp, row));
        if younger > 0 {
            // Only those who look at commits that nobody sees yet can have seen what comes behind it.
            self.kept.lock().retain(|kept| kept.recent <= place);
        }
        state.recent_rows.insert(row, timestamp);
        self.any.store(true, Ordering::Release);
        if state.recent.len().is_multiple_of(FOLD_THRESHOLD) {
            let settled = state.recent.partition_point(|(timestamp, _)| *timestamp <= watermark);
            // What stays has to be moved: as long as somebody reads who keeps most of them, it is left alone.
            if settled < state.recent.len() / 4 {
                return;
            }
            let State { base, recent, recent_rows } = &mut *state;
            for (_, row) in &recent[..settled] {
                recent_rows.remove(row);
            }
            Arc::make_mut(base).extend(recent.drain(..settled).map(|(_, row)| row));
            // Nobody sees fewer of them any more.
            let mut kept = self.kept.lock();
            kept.retain(|kept| kept.recent >= settled);
            kept.iter_mut().for_each(|kept| kept.recent -= settled);
        }
    }

    /// Adds rows whose delete every snapshot sees that is open or will be.
    pub(crate) fn add_settled(&self, rows: &RoaringBitmap) {
        if !rows.is_empty() {
            let mut state = self.state.write();
            *Arc::make_mut(&mut state.base) |= rows;
            self.kept.lock().clear();
            self.any.store(true, Ordering::Release);
        }
    }

    /// Whether the row is deleted for a reader at `timestamp`.
    pub(crate) fn contains(&self, row: u32, timestamp: Timestamp) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state.read();
        state.base.contains(row) || state.recent_rows.get(&row).is_some_and(|deleted| *deleted <= timestamp)
    }

    /// Lets `look` ask of many rows whether they are deleted for a reader at `timestamp`.
    pub(crate) fn look<R>(&self, timestamp: Timestamp, look: impl FnOnce(&Seen<'_>) -> R) -> R {
        if !self.any.load(Ordering::Acquire) {
            return look(&Seen { state: &State::default(), timestamp });
        }
        look(&Seen { state: &self.state.read(), timestamp })
    }

    /// The rows deleted for a reader at `timestamp`; `None` if there are none.
    pub(crate) fn at(&self, timestamp: Timestamp) -> Option<Arc<DeletedRows>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.read();
        let seen = state.recent.partition_point(|(deleted, _)| *deleted <= timestamp);
        if seen == 0 && state.base.is_empty() {
            return None;
        }
        let mut kept = self.kept.lock();
        if let Some(at) = kept.iter().position(|kept| kept.recent == seen) {
            let found = kept.remove(at);
            kept.push(found.clone());
            return Some(found.rows);
        }
        let nearest = kept.iter().filter(|kept| kept.recent < seen).max_by_key(|kept| kept.recent);
        let (from, mut rows) = match nearest {
            Some(nearest) => (nearest.recent, nearest.rows.as_ref().clone()),
            None => (0, DeletedRows::new(state.base.as_ref().clone())),
        };
        rows.add(&state.recent[from..seen].iter().map(|(_, row)| *row).collect::<Vec<u32>>());
        let rows = Arc::new(rows);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { recent: seen, rows: Arc::clone(&rows) });
        Some(rows)
    }

    /// The deletes that are not in `known`, in order of their timestamps; those that every snapshot sees have `settled`.
    pub(crate) fn since(&self, known: &RoaringBitmap, settled: Timestamp) -> Vec<(Timestamp, u32)> {
        let state = self.state.read();
        let base = (&*state.base - known).into_iter().map(|row| (settled, row));
        let recent = state.recent.iter().filter(|(_, row)| !known.contains(*row)).copied();
        base.chain(recent).collect()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state.read();
        let kept: usize = self.kept.lock().iter().map(|kept| kept.rows.memory_bytes()).sum();
        state.base.serialized_size() + state.recent.capacity() * 2 * size_of::<(Timestamp, u32)>() + kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_delete_is_seen_from_its_timestamp_on() {
        let deletes = DeleteSet::with_base([3].into_iter().collect());
        deletes.add(7, 10, 0);
        deletes.add(8, 12, 0);
        assert!(deletes.contains(3, 0));
        assert!(!deletes.contains(7, 9) && deletes.contains(7, 10));
        let rows: Vec<u32> = deletes.at(11).unwrap().rows().iter().collect();
        assert_eq!(rows, [3, 7]);
        assert!(DeleteSet::default().at(u64::MAX).is_none());
    }

    #[test]
    fn commits_may_report_their_deletes_in_any_order() {
        let deletes = DeleteSet::default();
        for timestamp in [12, 10, 13, 11] {
            deletes.add(timestamp as u32, timestamp, 9);
            for seen in 9..14 {
                let rows: RoaringBitmap = deletes.at(seen).map(|deleted| deleted.rows().clone()).unwrap_or_default();
                assert!(rows.iter().all(|row| u64::from(row) <= seen && deletes.contains(row, seen)));
            }
        }
        for seen in 9..14 {
            let rows: Vec<u32> = deletes.at(seen).iter().flat_map(|deleted| deleted.rows()).collect();
            assert_eq!(rows, (10..=seen as u32).collect::<Vec<_>>());
        }
        assert_eq!(deletes.since(&RoaringBitmap::new(), 9), [(10, 10), (11, 11), (12, 12), (13, 13)]);
    }

    #[test]
    fn deletes_since_a_moment_are_listed_in_commit_order() {
        let deletes = DeleteSet::with_base([3, 5].into_iter().collect());
        deletes.add(7, 10, 0);
        let known = deletes.at(10).unwrap();
        deletes.add(9, 12, 0);
        deletes.add(8, 12, 0);
        assert_eq!(deletes.since(known.rows(), 10), [(12, 9), (12, 8)]);
        assert_eq!(deletes.since(&[5].into_iter().collect(), 10), [(10, 3), (10, 7), (12, 9), (12, 8)]);
    }

    #[test]
    fn folding_respects_the_watermark() {
        let deletes = DeleteSet::default();
        let last = 4 * FOLD_THRESHOLD as u64;
        let watermark = last / 2;
        for timestamp in 1..=last {
            deletes.add(timestamp as u32, timestamp, watermark);
        }
        assert!(deletes.contains(watermark as u32, watermark));
        assert!(!deletes.contains(watermark as u32 + 1, watermark), "a snapshot there still sees the next row");
        assert_eq!(deletes.at(last).unwrap().len() as u64, last);
        assert_eq!(deletes.at(watermark + 100).unwrap().len() as u64, watermark + 100);
    }

    #[test]
    fn what_a_reader_keeps_is_folded_when_it_is_gone() {
        let deletes = DeleteSet::default();
        let last = 8 * FOLD_THRESHOLD as u64;
        for timestamp in 1..=last {
            let watermark = if timestamp < last { 0 } else { last - 1 };
            deletes.add(timestamp as u32, timestamp, watermark);
            assert!(
                deletes.contains(timestamp as u32, timestamp) && !deletes.contains(timestamp as u32, timestamp - 1)
            );
        }
        let state = deletes.state.read();
        assert_eq!((state.base.len(), state.recent.len(), state.recent_rows.len()), (last - 1, 1, 1));
    }

    #[test]
    fn readers_that_see_the_same_share_one_set() {
        let deletes = DeleteSet::with_base([3].into_iter().collect());
        deletes.add(7, 10, 0);
        let seen = deletes.at(10).unwrap();
        assert!(Arc::ptr_eq(&seen, &deletes.at(11).unwrap()));
        deletes.add(8, 12, 0);
        assert!(Arc::ptr_eq(&seen, &deletes.at(11).unwrap()));
        assert!(!Arc::ptr_eq(&seen, &deletes.at(12).unwrap()));
    }

    #[test]
    fn rows_are_chosen_across_all_containers_of_the_bitmap() {
        // As many rows as one container of a roaring bitmap has, of which each kind is here: an array, bits, all, none.
        const CONTAINER: u32 = 1 << 16;
        let was_deleted = |row: u32| match row / CONTAINER {
            0 => row % 1000 == 7,
            1 => row.is_multiple_of(3),
            2 => true,
            3 => false,
            _ => row > 5 * CONTAINER - 100,
        };
        let deletes = DeleteSet::with_base((0..5 * CONTAINER).filter(|row| was_deleted(*row)).collect());
        let lately = [(10, 1), (11, CONTAINER - 1), (12, CONTAINER + 1), (13, 3 * CONTAINER), (20, 4 * CONTAINER - 1)];
        lately.iter().for_each(|(timestamp, row)| deletes.add(*row, *timestamp, 9));
        let is_left = |row: u32| {
            let is_deleted = |(timestamp, deleted): &(u64, u32)| *timestamp <= 15 && *deleted == row;
            !was_deleted(row) && !lately.iter().any(is_deleted) && row % 5 != 4
        };
        let edges = [0, 8, CONTAINER - 1, CONTAINER, CONTAINER + 2, 2 * CONTAINER, 2 * CONTAINER + 9, 3 * CONTAINER];
        let edges: Vec<u32> = edges.into_iter().chain([3 * CONTAINER + 1, 4 * CONTAINER - 1, 5 * CONTAINER]).collect();
        for (at, low) in edges.iter().enumerate() {
            for high in &edges[at..] {
                let mut left: Vec<u32> = (*low..*high).filter(|row| is_left(*row)).collect();
                for descending in [false, true] {
                    for wanted in [1, 70_000, usize::MAX] {
                        let found =
                            deletes.look(15, |seen| seen.live(*low..*high, descending, wanted, |row| row % 5 != 4));
                        let expected = &left[..wanted.min(left.len())];
                        assert!(found == expected, "{low}..{high}, {wanted}, descending: {descending}");
                    }
                    left.reverse();
                }
            }
        }
    }

    #[test]
    fn any_reader_sees_exactly_what_was_deleted_by_then() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let segment_rows = 3 * BLOCK_ROWS as u32 - 100;
            let mut twin: Vec<(Timestamp, u32)> = (0..50).map(|_| (0, random.random_range(0..segment_rows))).collect();
            let deletes = DeleteSet::with_base(twin.iter().map(|(_, row)| *row).collect());
            let mut known: HashSet<u32> = twin.iter().map(|(_, row)| *row).collect();
            let mut watermark = 0;
            for timestamp in 1..5000 {
                let row = random.random_range(0..segment_rows);
                if known.insert(row) {
                    deletes.add(row, timestamp, watermark);
                    twin.push((timestamp, row));
                }
                if random.random_bool(0.01) {
                    watermark = random.random_range(watermark..=timestamp);
                    let reader = random.random_range(watermark..=timestamp);
                    let seen: RoaringBitmap =
                        twin.iter().filter(|(deleted, _)| *deleted <= reader).map(|(_, row)| *row).collect();
                    let (low, high) = (random.random_range(0..segment_rows), random.random_range(0..=segment_rows));
                    let mut left: Vec<u32> = (low..high).filter(|row| row % 7 != 0 && !seen.contains(*row)).collect();
                    for (descending, wanted) in [(false, 3), (false, usize::MAX), (true, usize::MAX), (true, 3)] {
                        let found =
                            deletes.look(reader, |seen| seen.live(low..high, descending, wanted, |row| row % 7 != 0));
                        left.sort_unstable_by_key(|row| if descending { u32::MAX - row } else { *row });
                        assert!(found.iter().eq(left.iter().take(wanted)), "seed {seed}, {low}..{high}, {wanted}");
                    }
                    let found = deletes.at(reader).unwrap();
                    assert_eq!(found.rows(), &seen, "seed {seed}, reader at {reader}");
                    for block in 0..4 {
                        let start = block as u32 * BLOCK_ROWS as u32;
                        let rows = (segment_rows.saturating_sub(start) as usize).min(BLOCK_ROWS);
                        let live: Vec<u32> = (0..rows as u32).filter(|row| !seen.contains(start + row)).collect();
                        assert_eq!(found.live(block, rows).indices(), live, "seed {seed}, block {block}");
                    }
                }
            }
        }
    }
}
