//! The programs of a database, by the text of their statements and the types of their parameters.
//!
//! Statements that have no program are kept, too, so that they are not compiled again and again in vain. An entry is good
//! for one catalog, one set of planner options and one search path ([`Origin`]); a change of any of them replaces it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::config::ConfigOptions;
use parking_lot::Mutex;
use rustydb_storage::Catalog;

use super::datum::Type;
use super::program::{Origin, Program};
use crate::Value;
use crate::routine::CompiledCall;

/// Texts kept per database. A program takes some kilobytes.
const TEXTS_MAX: usize = 2048;
/// Longer texts are seldom sent twice.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Combinations of parameter types kept for one text.
const VARIANTS_MAX: usize = 4;

/// Something compiled that runs a statement on the task of who sent it.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    Program(Arc<Program>),
    Call(Arc<CompiledCall>),
}

impl Ready {
    pub(crate) fn origin(&self) -> &Origin {
        match self {
            Ready::Program(program) => &program.origin,
            Ready::Call(call) => &call.origin,
        }
    }

    /// Whether it was compiled for parameters of these values' types.
    pub(crate) fn accepts(&self, values: &[Value]) -> bool {
        match self {
            Ready::Program(program) => program.accepts(values),
            Ready::Call(call) => call.accepts(values),
        }
    }

    /// Whether it should be tried now.
    pub(crate) fn is_due(&self) -> bool {
        match self {
            Ready::Program(program) => program.is_due(),
            Ready::Call(call) => call.passes.are_over(),
        }
    }
}

/// What is known of a statement.
#[derive(Debug)]
pub(crate) enum Known {
    Ready(Ready),
    /// It is not for the row path.
    Unsuited,
    Nothing,
}

/// The programs of one database.
#[derive(Debug, Default)]
pub(crate) struct ProgramCache {
    texts: Mutex<Texts>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// How well the cache does, since the database was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramCacheUsage {
    /// Statements whose program was found.
    pub hits: u64,
    /// Statements that had to be compiled, or looked at in vain.
    pub misses: u64,
    /// Texts given up for others.
    pub evictions: u64,
    /// Texts kept now.
    pub texts: u64,
    /// Programs kept now.
    pub programs: u64,
}

#[derive(Debug, Default)]
struct Texts {
    by_text: HashMap<Box<str>, Entry>,
    /// Counts look-ups; the entry with the oldest goes first.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    variants: Vec<Variant>,
    used: u64,
}

#[derive(Debug)]
struct Variant {
    types: Vec<Type>,
    origin: Origin,
    ready: Option<Ready>,
}

impl ProgramCache {
    /// What is known of a statement with these values of its parameters.
    pub(crate) fn find(
        &self,
        text: &str,
        values: &[Value],
        catalog: &Arc<Catalog>,
        options: &Arc<ConfigOptions>,
        search_path: &Arc<[String]>,
    ) -> Known {
        let mut texts = self.texts.lock();
        texts.clock += 1;
        let now = texts.clock;
        let found = texts.by_text.get_mut(text).and_then(|entry| {
            entry.used = now;
            let fits = |variant: &&Variant| {
                variant.types.len() == values.len()
                    && variant.types.iter().zip(values).all(|(own, value)| *own == value.data_type())
                    && variant.origin.is(catalog, options, search_path)
            };
            entry.variants.iter().find(fits)
        });
        match found {
            Some(Variant { ready: Some(ready), .. }) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Known::Ready(ready.clone())
            }
            Some(Variant { ready: None, .. }) => Known::Unsuited,
            None => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                Known::Nothing
            }
        }
    }

    /// Keeps what was found out about a statement.
    pub(crate) fn keep(&self, text: &str, types: Vec<Type>, origin: Origin, ready: Option<Ready>) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        let mut texts = self.texts.lock();
        if texts.by_text.len() >= TEXTS_MAX && !texts.by_text.contains_key(text) {
            // A sixteenth at once: looking for the oldest takes a while.
            let mut ages: Vec<u64> = texts.by_text.values().map(|entry| entry.used).collect();
            let place = ages.len() / 16;
            let (_, limit, _) = ages.select_nth_unstable(place);
            let limit = *limit;
            let before = texts.by_text.len();
            texts.by_text.retain(|_, entry| entry.used > limit);
            self.evictions.fetch_add((before - texts.by_text.len()) as u64, Ordering::Relaxed);
        }
        let used = texts.clock;
        let entry = texts.by_text.entry(text.into()).or_insert_with(|| Entry { variants: Vec::new(), used });
        entry.variants.retain(|variant| variant.types != types);
        if entry.variants.len() >= VARIANTS_MAX {
            entry.variants.remove(0);
        }
        entry.variants.push(Variant { types, origin, ready });
    }

    /// How well it does.
    pub(crate) fn usage(&self) -> ProgramCacheUsage {
        let texts = self.texts.lock();
        let programs = texts.by_text.values().flat_map(|entry| &entry.variants);
        ProgramCacheUsage {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            texts: texts.by_text.len() as u64,
            programs: programs.filter(|variant| variant.ready.is_some()).count() as u64,
        }
    }
}
