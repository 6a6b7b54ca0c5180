//! What the database uses and how well its caches work: `rustydb_memory`, `rustydb_cache` and `rustydb_plan_cache`.

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryLimit;

use super::{Cell, Rows};
use crate::row_path::{ProgramCache, ProgramCacheUsage};
use crate::scan::ExecutionView;

pub(super) fn plan_cache(context: &TaskContext, rows: &mut Rows) {
    let Some(programs) = context.session_config().get_extension::<ProgramCache>() else { return };
    let ProgramCacheUsage { hits, misses, evictions, texts, programs } = programs.usage();
    for (name, value) in
        [("hits", hits), ("misses", misses), ("evictions", evictions), ("texts", texts), ("programs", programs)]
    {
        rows.push([Cell::Text(name), Cell::Bytes(value)]);
    }
}

/// What each part holds and may hold. Columns, indexes, loads and compactions share one limit.
pub(super) fn memory(view: &ExecutionView, context: &TaskContext, rows: &mut Rows) {
    let store = view.store().memory();
    let bytes = |count: usize| Cell::Bytes(count as u64);
    let pool = context.memory_pool();
    let of_queries = match pool.memory_limit() {
        MemoryLimit::Finite(limit) => bytes(limit),
        _ => Cell::Null,
    };
    let cache_limit = || bytes(store.cache_limit_bytes);
    rows.push([Cell::Text("queries"), bytes(pool.reserved()), of_queries]);
    rows.push([
        Cell::Text("memtable"),
        bytes(store.memtable_bytes + store.pinned_bytes),
        bytes(store.memtable_limit_bytes),
    ]);
    rows.push([Cell::Text("column cache"), bytes(store.column_cache_bytes), cache_limit()]);
    rows.push([Cell::Text("key indexes"), bytes(store.key_index_bytes), cache_limit()]);
    rows.push([Cell::Text("secondary indexes"), bytes(store.posting_bytes), cache_limit()]);
    rows.push([Cell::Text("loads and compactions"), bytes(store.background_bytes), cache_limit()]);
    rows.push([Cell::Text("transactions"), bytes(store.transaction_bytes), bytes(store.transaction_limit_bytes)]);
    rows.push([Cell::Text("delete sets"), bytes(store.delete_set_bytes), Cell::Null]);
}

pub(super) fn cache(view: &ExecutionView, rows: &mut Rows) {
    let store = view.store().memory();
    let (hits, misses) = (store.column_cache_hits, store.column_cache_misses);
    let rate = match hits + misses {
        0 => Cell::Null,
        requests => Cell::Share(hits as f64 / requests as f64),
    };
    rows.push([Cell::Bytes(hits), Cell::Bytes(misses), Cell::Bytes(store.column_cache_evictions), rate]);
}
