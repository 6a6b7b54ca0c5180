//! What is in memory of segments, while the budget allows: encoded columns, key indexes, postings of secondary indexes.
//!
//! The unit is a [`Slot`]: one column of one segment, its key index, one index's postings. A segment owns its slots, so who
//! reads finds what is there without asking anybody; the cache decides what stays. Two readers that miss at once load
//! once. A reader that holds a value keeps it alive until it is done, let go or not, and others find it through the slot
//! meanwhile. A value larger than the whole budget is served and not kept.
//!
//! ```text
//!              first time                   used again meanwhile
//!   load ──▶ [ small: a tenth of the bytes ] ─────────▶ [ main ] ──▶ not used since it came by last: out
//!     │              │ not used again                      ▲  └── used since: goes round again
//!     │              ▼                                     │
//!     └─ known ◀── [ ghost: names only ] ──────────────────┘ loaded again soon: straight to main
//! ```
//! This is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), by bytes. One pass over
//! much data, a table scanned once, goes through the small queue and leaves the main one alone.

mod ghosts;

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc::UnboundedSender;

use crate::catalog::IndexId;
use crate::error::Result;
use ghosts::Ghosts;

/// What of a segment a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// A column, encoded.
    Column(usize),
    /// A page of a column, encoded: the column, and which of its pages.
    Page(u32, u32),
    /// Where the pages of all columns are.
    PageTable,
    /// The keys of all rows, in order.
    Keys,
    /// From key to row.
    KeyIndex,
    /// The rows in the order of a secondary index.
    Postings(IndexId),
}

impl Part {
    fn kind(self) -> usize {
        match self {
            Part::Column(_) | Part::Page(..) | Part::PageTable => 0,
            Part::Keys | Part::KeyIndex => 1,
            Part::Postings(_) => 2,
        }
    }
}

/// A slot's name: the segment, and what of it.
pub(crate) type SlotName = (u64, Part);

/// The small queue's share of the budget.
const SMALL_SHARE: usize = 10;

/// Uses beyond this many count no more: what was hot once must not stay for ever.
const USES_MAX: u8 = 3;

/// Something that may be in memory, or be loaded.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<SlotInner<T>>);

/// The right to load what a slot is for. Others wait as long as it is held.
pub(crate) type Loading<'a> = tokio::sync::MutexGuard<'a, ()>;

#[derive(Debug)]
struct SlotInner<T> {
    name: SlotName,
    /// As long as the cache keeps it.
    kept: ArcSwapOption<T>,
    /// As long as anybody has it.
    alive: RwLock<Weak<T>>,
    /// Held while loading.
    loading: tokio::sync::Mutex<()>,
    /// Since it came into its queue, or came by its end last.
    uses: AtomicU8,
    /// Those that hold this slot's value together with others'.
    assemblies: Mutex<Vec<Weak<dyn Assembly>>>,
}

/// Something that holds the values of several slots, and must let go of them when the cache does of one.
pub(crate) trait Assembly: std::fmt::Debug + Send + Sync {
    fn let_go(&self);
}

/// The values of several slots, or what of them is in memory: one atomic operation gets hold of all of them.
///
/// Holding a value that the cache has let go would be memory that nobody counts, so the assembly goes with the first of
/// them. Who has added it to each slot ([`Slot::join`]) may use [`offer`](Self::offer).
#[derive(Debug)]
pub(crate) struct Assembled<T>(ArcSwapOption<T>);

impl<T> Default for Assembled<T> {
    fn default() -> Self {
        Assembled(ArcSwapOption::empty())
    }
}

impl<T: std::fmt::Debug + Send + Sync> Assembly for Assembled<T> {
    fn let_go(&self) {
        self.0.store(None);
    }
}

impl<T: std::fmt::Debug + Send + Sync> Assembled<T> {
    /// What was offered, if it is still there.
    pub(crate) fn load(&self) -> arc_swap::Guard<Option<Arc<T>>> {
        self.0.load()
    }

    /// Keeps an assembly, unless by now the cache does not keep everything in it.
    pub(crate) fn offer(&self, made: &Arc<T>, is_kept: impl FnOnce() -> bool) {
        self.0.store(Some(Arc::clone(made)));
        // Whoever lets go of a value takes it away first, and the assembly then. If that came before it, it is seen here.
        fence(Ordering::SeqCst);
        if !is_kept() {
            self.let_go();
        }
    }
}

/// Something that is held, with its size, and where the cache has it if it keeps it.
#[must_use]
#[derive(Debug)]
pub(crate) struct Held {
    _value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    slot: Arc<dyn Resident>,
}

impl Held {
    /// What it takes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What of that the cache does not count.
    pub(crate) fn uncounted_bytes(&self) -> usize {
        if self.slot.is_kept() { 0 } else { self.bytes }
    }
}

impl<T: std::fmt::Debug + Send + Sync + 'static> Slot<T> {
    /// Holds this slot's value.
    pub(crate) fn hold(&self, value: Arc<T>, bytes: usize) -> Held {
        Held { _value: value, bytes, slot: Arc::clone(&self.0) as Arc<dyn Resident> }
    }
}

impl<T> Slot<T> {
    pub(crate) fn new(name: SlotName) -> Self {
        let (kept, alive, uses) = (ArcSwapOption::empty(), RwLock::new(Weak::new()), AtomicU8::new(0));
        let (loading, assemblies) = (tokio::sync::Mutex::new(()), Mutex::default());
        Slot(Arc::new(SlotInner { name, kept, alive, loading, uses, assemblies }))
    }

    /// From now on an assembly may hold the value.
    pub(crate) fn join(&self, assembly: Weak<dyn Assembly>) {
        let mut assemblies = self.0.assemblies.lock();
        assemblies.retain(|other| other.strong_count() > 0);
        assemblies.push(assembly);
    }

    /// The value, if the cache keeps it, which counts as no use.
    pub(crate) fn kept(&self) -> Option<Arc<T>> {
        self.0.kept.load_full()
    }

    /// Whether the cache keeps the value, which counts as no use.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.kept.load().is_some()
    }

    /// Counts a use of the value: somebody has it from an assembly.
    pub(crate) fn note_use(&self) {
        if self.0.uses.load(Ordering::Relaxed) < USES_MAX {
            self.0.uses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The value, if it is in memory. Holding it is what makes sure that it still is a moment later.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let Some(value) = self.0.kept.load_full() else { return self.0.alive.read().upgrade() };
        self.note_use();
        Some(value)
    }

    /// The right to load the value, unless somebody has it.
    pub(crate) fn try_begin_loading(&self) -> Option<Loading<'_>> {
        self.0.loading.try_lock().ok()
    }

    /// Whether the value is in memory, which counts as no use.
    pub(crate) fn is_present(&self) -> bool {
        self.0.kept.load().is_some() || self.0.alive.read().strong_count() > 0
    }

    /// What `read` makes of the value, if the cache keeps it. Costs no more than looking at it: cores that do this at the
    /// same time write nothing in common, unlike with [`get`](Self::get), which counts who holds the value.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&T) -> R) -> Option<R> {
        let kept = self.0.kept.load();
        let value = kept.as_deref()?;
        self.note_use();
        Some(read(value))
    }
}

/// What the cache can do with a slot, whatever is in it.
trait Resident: std::fmt::Debug + Send + Sync {
    fn name(&self) -> SlotName;
    fn uses(&self) -> &AtomicU8;
    fn is_kept(&self) -> bool;
    fn let_go(&self);
}

impl<T: std::fmt::Debug + Send + Sync> Resident for SlotInner<T> {
    fn name(&self) -> SlotName {
        self.name
    }

    fn uses(&self) -> &AtomicU8 {
        &self.uses
    }

    fn is_kept(&self) -> bool {
        self.kept.load().is_some()
    }

    fn let_go(&self) {
        self.kept.store(None);
        self.assemblies.lock().iter().filter_map(Weak::upgrade).for_each(|assembly| assembly.let_go());
    }
}

#[derive(Debug)]
struct Entry {
    slot: Arc<dyn Resident>,
    memory_bytes: usize,
}

#[derive(Debug, Default)]
struct Queues {
    small: VecDeque<Entry>,
    main: VecDeque<Entry>,
    ghosts: Ghosts,
    small_bytes: usize,
    /// What loads and compactions have taken of the budget for themselves.
    reserved_bytes: usize,
    /// What others have lent on top of the budget.
    lent_bytes: usize,
    /// Of columns, of key indexes, of postings.
    kind_bytes: [usize; 3],
    evictions: u64,
}

/// The cache of one store.
#[derive(Debug)]
pub(crate) struct ColumnCache {
    budget_bytes: usize,
    queues: Mutex<Queues>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ColumnCache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        ColumnCache { budget_bytes, queues: Mutex::default(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The slot's value, if it is in memory.
    pub(crate) fn get<T>(&self, slot: &Slot<T>) -> Option<Arc<T>> {
        let value = slot.get()?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// The slot's value, loading it if need be; concurrent calls for one slot share the loading.
    pub(crate) async fn get_or_load<T: std::fmt::Debug + Send + Sync + 'static>(
        &self,
        slot: &Slot<T>,
        memory_bytes: impl Fn(&T) -> usize,
        load: impl Future<Output = Result<T>>,
    ) -> Result<Arc<T>> {
        if let Some(value) = self.get(slot) {
            return Ok(value);
        }
        let loading = slot.0.loading.lock().await;
        self.load(slot, loading, memory_bytes, load).await
    }

    /// The same; nothing if another call is loading it.
    pub(crate) async fn get_or_load_alone<T: std::fmt::Debug + Send + Sync + 'static>(
        &self,
        slot: &Slot<T>,
        memory_bytes: impl Fn(&T) -> usize,
        load: impl Future<Output = Result<T>>,
    ) -> Result<Option<Arc<T>>> {
        if let Some(value) = self.get(slot) {
            return Ok(Some(value));
        }
        let Some(loading) = slot.try_begin_loading() else { return Ok(None) };
        self.load(slot, loading, memory_bytes, load).await.map(Some)
    }

    /// The same for who has the right to load it.
    pub(crate) async fn load<T: std::fmt::Debug + Send + Sync + 'static>(
        &self,
        slot: &Slot<T>,
        _loading: Loading<'_>,
        memory_bytes: impl Fn(&T) -> usize,
        load: impl Future<Output = Result<T>>,
    ) -> Result<Arc<T>> {
        if let Some(value) = self.get(slot) {
            return Ok(value);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = Arc::new(load.await?);
        self.admit(slot, &value, memory_bytes(&value));
        Ok(value)
    }

    /// Counts calls that [`Slot::with`] has served.
    pub(crate) fn count_hits(&self, hits: u64) {
        self.hits.fetch_add(hits, Ordering::Relaxed);
    }

    /// Puts a value into its slot that somebody has made without being asked to, if nothing is there.
    pub(crate) fn offer<T: std::fmt::Debug + Send + Sync + 'static>(
        &self,
        slot: &Slot<T>,
        value: &Arc<T>,
        memory_bytes: usize,
    ) {
        // Whoever is loading will be faster than waiting for it.
        let Some(_loading) = slot.try_begin_loading() else { return };
        if slot.get().is_none() {
            self.admit(slot, value, memory_bytes);
        }
    }

    /// Whether so many bytes more would drive nothing out.
    pub(crate) fn has_room(&self, memory_bytes: usize) -> bool {
        self.fits(&self.queues.lock(), memory_bytes)
    }

    fn fits(&self, queues: &Queues, memory_bytes: usize) -> bool {
        queues.memory_bytes().saturating_add(memory_bytes) <= self.room_bytes(queues)
    }

    /// Takes a part of the budget for something else, at most [`reservable_bytes`](Self::reservable_bytes), until the
    /// reservation is dropped; drives out what stands in the way.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        let mut queues = self.queues.lock();
        queues.reserved_bytes += bytes;
        self.evict(&mut queues);
        Reservation { cache: Arc::clone(self), bytes }
    }

    /// The most that one load or compaction may take for itself.
    pub(crate) fn reservable_bytes(&self) -> usize {
        self.budget_bytes / 2
    }

    /// What there is for values: the loan, and what reservations leave of the budget. Together they do not get the last
    /// quarter of that: reads must go on.
    fn room_bytes(&self, queues: &Queues) -> usize {
        let own = self.budget_bytes - queues.reserved_bytes.min(self.budget_bytes / 4 * 3);
        own.saturating_add(queues.lent_bytes)
    }

    fn evict(&self, queues: &mut Queues) {
        let room = self.room_bytes(queues);
        while queues.memory_bytes() > room && queues.evict_one(room / SMALL_SHARE) {}
    }

    /// Keeps a value, puts its slot into the queue it belongs to, and evicts down to the budget.
    fn admit<T: std::fmt::Debug + Send + Sync + 'static>(&self, slot: &Slot<T>, value: &Arc<T>, memory_bytes: usize) {
        *slot.0.alive.write() = Arc::downgrade(value);
        let mut queues = self.queues.lock();
        if memory_bytes > self.budget_bytes.saturating_add(queues.lent_bytes) {
            return;
        }
        slot.0.uses.store(0, Ordering::Relaxed);
        slot.0.kept.store(Some(Arc::clone(value)));
        queues.kind_bytes[slot.0.name.1.kind()] += memory_bytes;
        let entry = Entry { slot: Arc::clone(&slot.0) as Arc<dyn Resident>, memory_bytes };
        if queues.ghosts.take(&slot.0.name) {
            queues.main.push_back(entry);
        } else {
            queues.small.push_back(entry);
            queues.small_bytes += memory_bytes;
        }
        self.evict(&mut queues);
    }

    /// Forgets what is kept of a segment.
    pub(crate) fn remove_segment(&self, segment: u64) {
        let mut queues = self.queues.lock();
        let queues = &mut *queues;
        let (mut small_gone, kinds) = (0, &mut queues.kind_bytes);
        let mut keep = |entry: &Entry, gone: &mut usize| {
            let (owner, part) = entry.slot.name();
            if owner == segment {
                entry.slot.let_go();
                *gone += entry.memory_bytes;
                kinds[part.kind()] -= entry.memory_bytes;
            }
            owner != segment
        };
        queues.small.retain(|entry| keep(entry, &mut small_gone));
        queues.main.retain(|entry| keep(entry, &mut 0));
        queues.small_bytes -= small_gone;
        queues.ghosts.remove_segment(segment);
    }

    /// Budget and loan.
    pub(crate) fn limit_bytes(&self) -> usize {
        self.budget_bytes.saturating_add(self.queues.lock().lent_bytes)
    }

    /// What loads and compactions have taken.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.queues.lock().reserved_bytes
    }

    /// Memory held for columns, for key indexes, and for postings.
    pub(crate) fn memory_bytes(&self) -> [usize; 3] {
        self.queues.lock().kind_bytes
    }

    /// Values let go to keep the budget, since the store was opened.
    pub(crate) fn evictions(&self) -> u64 {
        self.queues.lock().evictions
    }

    /// Calls served from memory and calls that had to load, since the store was opened.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Queues {
    fn memory_bytes(&self) -> usize {
        self.kind_bytes.iter().sum()
    }

    /// Moves one entry on: out, to the other queue, or round again. Whether there was any.
    fn evict_one(&mut self, small_bytes_max: usize) -> bool {
        let from_small = self.small_bytes > small_bytes_max || self.main.is_empty();
        let (entry, was_small) = match if from_small { self.small.pop_front() } else { None } {
            Some(entry) => (entry, true),
            None => match self.main.pop_front() {
                Some(entry) => (entry, false),
                None => return false,
            },
        };
        if was_small {
            self.small_bytes -= entry.memory_bytes;
        }
        let uses = entry.slot.uses();
        let used = uses.load(Ordering::Relaxed);
        if used > 0 {
            uses.store(if was_small { 0 } else { used - 1 }, Ordering::Relaxed);
            self.main.push_back(entry);
            return true;
        }
        let name = entry.slot.name();
        if was_small {
            self.ghosts.add(name);
        }
        self.evictions += 1;
        self.kind_bytes[name.1.kind()] -= entry.memory_bytes;
        entry.slot.let_go();
        true
    }
}

/// Memory of somebody else, for a store to keep columns and indexes in until it is asked back.
#[derive(Debug, Clone)]
pub struct SpareMemory(Arc<ColumnCache>);

impl SpareMemory {
    pub(crate) fn of(cache: &Arc<ColumnCache>) -> SpareMemory {
        SpareMemory(Arc::clone(cache))
    }

    /// Lends so many bytes from now on, instead of what was lent before. When this returns, no more is used; only what a
    /// reader holds at the moment stays until it is done.
    pub fn lend(&self, bytes: usize) {
        let mut queues = self.0.queues.lock();
        queues.lent_bytes = bytes;
        self.0.evict(&mut queues);
    }
}

/// A part of the budget that something else than the cache uses.
#[derive(Debug)]
pub(crate) struct Reservation {
    cache: Arc<ColumnCache>,
    bytes: usize,
}

impl Reservation {
    /// Reserves more, if it is less than this.
    pub(crate) fn grow_to(&mut self, bytes: usize) {
        if bytes > self.bytes {
            let mut queues = self.cache.queues.lock();
            queues.reserved_bytes += bytes - self.bytes;
            self.bytes = bytes;
            self.cache.evict(&mut queues);
        }
    }

    /// Reserves `bytes` in the place of `counted`, which are a part of this, unless that would drive something out: then neither
    /// of them stays reserved. Tells whether it has.
    pub(crate) fn try_exchange(&mut self, counted: usize, bytes: usize) -> bool {
        let mut queues = self.cache.queues.lock();
        let fits = bytes <= counted || self.cache.fits(&queues, bytes - counted);
        let granted = if fits { bytes } else { 0 };
        queues.reserved_bytes = queues.reserved_bytes + granted - counted;
        self.bytes = self.bytes + granted - counted;
        fits
    }

    /// Reserves as much as this instead.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.grow_to(bytes);
        if bytes < self.bytes {
            self.cache.queues.lock().reserved_bytes -= self.bytes - bytes;
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.cache.queues.lock().reserved_bytes -= self.bytes;
    }
}

/// Where segments find their columns.
#[derive(Debug)]
pub(crate) struct ColumnSource {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) cache: Arc<ColumnCache>,
    /// Paths of files nobody needs any more, for the background thread to remove.
    discarded: UnboundedSender<String>,
}

impl ColumnSource {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, cache: ColumnCache, discarded: UnboundedSender<String>) -> Self {
        ColumnSource { objects, cache: Arc::new(cache), discarded }
    }

    /// Has a file removed in the background. If the store is closing, the next opening removes it instead.
    pub(crate) fn discard(&self, path: String) {
        let _ = self.discarded.send(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a kibibyte and their slots.
    struct Cached {
        cache: ColumnCache,
        slots: Vec<Slot<usize>>,
    }

    const ONE: usize = 1024;

    impl Cached {
        fn new(budget_bytes: usize, slots: usize) -> Cached {
            let slot = |index| Slot::new((index as u64 / 1000, Part::Column(index)));
            Cached { cache: ColumnCache::new(budget_bytes), slots: (0..slots).map(slot).collect() }
        }

        async fn load(&self, index: usize) -> Arc<usize> {
            self.cache.get_or_load(&self.slots[index], |_| ONE, async { Ok(index) }).await.unwrap()
        }

        fn total(&self) -> usize {
            self.cache.memory_bytes().iter().sum()
        }
    }

    #[tokio::test]
    async fn the_budget_holds_and_the_longest_unused_value_goes() {
        let cached = Cached::new(2 * ONE, 3);
        for index in [0, 1, 0, 2] {
            assert_eq!(*cached.load(index).await, index);
        }
        assert_eq!((cached.total(), cached.cache.evictions()), (2 * ONE, 1));
        assert_eq!(cached.cache.hits_and_misses(), (1, 3));
        cached.load(0).await;
        assert_eq!(cached.cache.hits_and_misses(), (2, 3), "the one used in between was kept");
        cached.load(1).await;
        assert_eq!(cached.cache.hits_and_misses(), (2, 4), "the other was not");
        cached.cache.remove_segment(0);
        assert_eq!(cached.total(), 0);
        assert!(cached.slots.iter().all(|slot| slot.get().is_none()));
    }

    #[tokio::test]
    async fn one_pass_over_much_does_not_drive_out_what_is_used_again() {
        let cached = Cached::new(20 * ONE, 2000);
        for _ in 0..3 {
            for index in 0..15 {
                cached.load(index).await;
            }
        }
        for index in 1000..2000 {
            cached.load(index).await;
            assert!(cached.total() <= 20 * ONE);
        }
        let (_, misses) = cached.cache.hits_and_misses();
        for index in 0..15 {
            cached.load(index).await;
        }
        assert_eq!(cached.cache.hits_and_misses().1, misses, "all of them were still there");
    }

    #[tokio::test]
    async fn what_comes_back_soon_is_kept_longer() {
        let cached = Cached::new(4 * ONE, 30);
        for index in 0..5 {
            cached.load(index).await;
        }
        cached.load(0).await;
        for index in 10..30 {
            cached.load(index).await;
        }
        let (hits, _) = cached.cache.hits_and_misses();
        cached.load(0).await;
        assert_eq!(cached.cache.hits_and_misses().0, hits + 1, "its second load made it a resident");
    }

    #[tokio::test]
    async fn a_value_larger_than_the_budget_is_served_and_drives_nothing_out() {
        let cached = Cached::new(ONE, 2);
        cached.load(0).await;
        let large = cached.cache.get_or_load(&cached.slots[1], |_| ONE + 1, async { Ok(7) }).await.unwrap();
        assert_eq!((*large, cached.total(), cached.cache.evictions()), (7, ONE, 0));
        assert!(cached.slots[1].get().is_some(), "it is there as long as somebody has it");
        drop(large);
        assert!(cached.slots[1].get().is_none());
    }

    #[tokio::test]
    async fn what_somebody_holds_is_found_though_it_was_let_go() {
        let cached = Cached::new(ONE, 2);
        let held = cached.load(0).await;
        cached.load(1).await;
        assert_eq!(cached.cache.evictions(), 1);
        assert!(Arc::ptr_eq(&held, &cached.load(0).await));
        drop(held);
        assert!(cached.slots[0].get().is_none());
    }

    #[tokio::test]
    async fn an_offer_fills_an_empty_slot_only() {
        let cached = Cached::new(4 * ONE, 2);
        let first = cached.load(0).await;
        cached.cache.offer(&cached.slots[0], &Arc::new(70), ONE);
        assert!(Arc::ptr_eq(&first, &cached.load(0).await));
        cached.cache.offer(&cached.slots[1], &Arc::new(71), ONE);
        assert_eq!((*cached.load(1).await, cached.total()), (71, 2 * ONE));
        assert!(cached.cache.has_room(2 * ONE) && !cached.cache.has_room(2 * ONE + 1));
    }

    #[tokio::test]
    async fn a_reservation_makes_room_and_gives_it_back() {
        let cached = Cached { cache: ColumnCache::new(8 * ONE), ..Cached::new(0, 9) };
        let cache = Arc::new(cached.cache);
        for slot in &cached.slots[..8] {
            cache.get_or_load(slot, |_| ONE, async { Ok(1) }).await.unwrap();
        }
        let reservation = cache.reserve(cache.reservable_bytes());
        assert_eq!((cache.memory_bytes()[0], cache.reserved_bytes()), (4 * ONE, 4 * ONE));
        let mut all = cache.reserve(0);
        all.grow_to(100 * ONE);
        all.grow_to(3);
        assert_eq!(cache.memory_bytes()[0], 2 * ONE, "a quarter is left");
        drop((reservation, all));
        assert!(cache.has_room(6 * ONE) && cache.reserved_bytes() == 0);
    }

    #[tokio::test]
    async fn a_reservation_that_cannot_grow_gives_back_what_it_was_to_grow_from() {
        let cached = Cached { cache: ColumnCache::new(8 * ONE), ..Cached::new(0, 5) };
        let cache = Arc::new(cached.cache);
        for slot in &cached.slots {
            cache.get_or_load(slot, |_| ONE, async { Ok(1) }).await.unwrap();
        }
        let mut reservation = cache.reserve(0);
        assert!(reservation.try_exchange(0, ONE) && reservation.try_exchange(0, ONE));
        assert!(!reservation.try_exchange(0, ONE + 1), "five values and two kibibytes leave one");
        assert_eq!(cache.reserved_bytes(), 2 * ONE);
        assert!(reservation.try_exchange(ONE, 2 * ONE));
        assert_eq!(cache.reserved_bytes(), 3 * ONE);
        assert!(!reservation.try_exchange(2 * ONE, 2 * ONE + 1));
        assert_eq!(cache.reserved_bytes(), ONE, "what stays is not of this column");
        assert!(reservation.try_exchange(ONE, ONE / 2));
        assert_eq!((cache.reserved_bytes(), cache.memory_bytes()[0]), (ONE / 2, 5 * ONE), "nothing was driven out");
        drop(reservation);
        assert_eq!(cache.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn what_is_lent_is_used_and_given_back() {
        let cached = Cached { cache: ColumnCache::new(2 * ONE), ..Cached::new(0, 9) };
        let cache = Arc::new(cached.cache);
        let spare = SpareMemory::of(&cache);
        spare.lend(4 * ONE);
        for slot in &cached.slots {
            cache.get_or_load(slot, |_| ONE, async { Ok(1) }).await.unwrap();
        }
        assert_eq!((cache.memory_bytes()[0], cache.limit_bytes()), (6 * ONE, 6 * ONE));
        let held = cached.slots.iter().find_map(Slot::get).unwrap();
        let reservation = cache.reserve(cache.reservable_bytes());
        assert_eq!(cache.memory_bytes()[0], 5 * ONE, "loads and compactions have a share of the budget alone");
        spare.lend(ONE);
        assert_eq!(cache.memory_bytes()[0], 2 * ONE);
        drop((held, reservation));
        spare.lend(0);
        assert_eq!((cache.memory_bytes()[0], cache.limit_bytes()), (2 * ONE, 2 * ONE));
        assert_eq!(cached.slots.iter().filter(|slot| slot.get().is_some()).count(), 2);
    }

    #[tokio::test]
    async fn readers_that_miss_together_load_once() {
        let cached = Cached::new(usize::MAX, 1);
        let loads = AtomicU64::new(0);
        let load = || {
            cached.cache.get_or_load(&cached.slots[0], |_| ONE, async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(7)
            })
        };
        let (left, right) = tokio::join!(load(), load());
        assert!(Arc::ptr_eq(&left.unwrap(), &right.unwrap()));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failed_load_is_tried_again() {
        let cached = Cached::new(usize::MAX, 1);
        let failed = cached.cache.get_or_load(&cached.slots[0], |_| ONE, async { Err(crate::Error::Closed) }).await;
        assert!(failed.is_err());
        assert_eq!(*cached.load(0).await, 0);
        assert_eq!(cached.total(), ONE);
    }

    #[tokio::test]
    async fn who_does_not_want_to_wait_is_told_that_a_value_is_being_loaded() {
        let cached = Cached::new(2 * ONE, 1);
        let (cache, slot) = (&cached.cache, &cached.slots[0]);
        let (started, finish) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let slow = cache.get_or_load(slot, |_| ONE, async {
            started.notify_one();
            finish.notified().await;
            Ok(7)
        });
        let impatient = async {
            started.notified().await;
            let found = cache.get_or_load_alone(slot, |_| ONE, async { panic!("loaded twice") }).await.unwrap();
            assert!(found.is_none() && !slot.is_present());
            finish.notify_one();
        };
        let (value, ()) = tokio::join!(slow, impatient);
        assert_eq!(*value.unwrap(), 7);
        let found = cache.get_or_load_alone(slot, |_| ONE, async { panic!("loaded twice") }).await.unwrap();
        assert_eq!((found.as_deref(), slot.is_present()), (Some(&7), true));
    }
}
