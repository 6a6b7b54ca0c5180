//! An inner node of the tree: which child holds which keys. Immutable; a change makes a new one.

use super::search::{AscendingKeys, PREFIX_BYTES_MAX, common_length, head_of, search};

/// Separators in ascending order, and for each the child that holds the keys from it up to the next one. The first
/// child also holds everything below.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    prefix: Vec<u8>,
    heads: Vec<u64>,
    bytes: Vec<u8>,
    /// Where each separator ends in `bytes`.
    ends: Vec<u32>,
    children: Vec<u32>,
}

impl AscendingKeys for Directory {
    fn key(&self, position: usize) -> &[u8] {
        &self.bytes[self.start(position)..self.ends[position] as usize]
    }

    fn key_length(&self, position: usize) -> usize {
        self.ends[position] as usize - self.start(position)
    }
}

impl Directory {
    /// A directory of these children.
    pub(super) fn new<'a>(children: impl IntoIterator<Item = (&'a [u8], u32)>) -> Directory {
        let mut directory = Directory::default();
        for (separator, child) in children {
            directory.bytes.extend_from_slice(separator);
            directory.ends.push(directory.bytes.len() as u32);
            directory.children.push(child);
        }
        directory.index();
        directory
    }

    /// Finds the common prefix and the heads behind it.
    fn index(&mut self) {
        let count = self.len();
        let shared = match count {
            0 => 0,
            _ => common_length(self.key(0), self.key(count - 1)).min(PREFIX_BYTES_MAX),
        };
        self.prefix = if count == 0 { Vec::new() } else { self.key(0)[..shared].to_vec() };
        self.heads = (0..count).map(|position| head_of(&self.key(position)[shared..])).collect();
    }

    fn start(&self, position: usize) -> usize {
        if position == 0 { 0 } else { self.ends[position - 1] as usize }
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// All children with their separators.
    pub(super) fn children(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.children.iter().enumerate().map(|(position, child)| (self.key(position), *child))
    }

    /// The child that holds `key`.
    pub(super) fn child(&self, key: &[u8]) -> u32 {
        match search(&self.prefix, &self.heads, self, key) {
            Ok(position) => self.children[position],
            Err(position) => self.children[position.saturating_sub(1)],
        }
    }

    /// The child that holds the greatest keys below `key`.
    pub(super) fn child_below(&self, key: &[u8]) -> u32 {
        let position = search(&self.prefix, &self.heads, self, key).unwrap_or_else(|position| position);
        self.children[position.saturating_sub(1)]
    }

    /// The child that holds the greatest keys of all.
    pub(super) fn last_child(&self) -> u32 {
        self.children[self.len() - 1]
    }

    /// The same with one child more.
    pub(super) fn with(&self, separator: &[u8], child: u32) -> Directory {
        let position = search(&self.prefix, &self.heads, self, separator).unwrap_or_else(|position| position);
        let (before, behind) = (self.children().take(position), self.children().skip(position));
        Directory::new(before.chain([(separator, child)]).chain(behind))
    }

    /// The lower and the upper half, and the separator between them.
    pub(super) fn halves(&self) -> (Directory, Box<[u8]>, Directory) {
        let middle = self.len() / 2;
        let (lower, upper) = (self.children().take(middle), self.children().skip(middle));
        (Directory::new(lower), self.key(middle).into(), Directory::new(upper))
    }
}
