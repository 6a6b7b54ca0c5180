//! Sorted runs read as one: of equal keys, that of the last run.
//!
//! ```text
//!             winner: the least key of all
//!          ┌────┴────┐
//!        loser     loser        each place keeps who lost there; when the winner moves on to its next key, only the
//!       ┌──┴──┐   ┌──┴──┐       places on its way up are played again: one comparison for each doubling of the runs
//!      run 0 run 1 run 2 run 3
//! ```
//! A tree of losers (Knuth, "The Art of Computer Programming", volume 3, 5.4.1). Keys are compared as numbers, the eight
//! bytes behind what all keys of all runs have in common.

use super::runs::Run;
use super::search::{common_length, head_of};

/// The next key of a run.
#[derive(Debug)]
struct Source<'a, T> {
    run: &'a Run<T>,
    position: usize,
}

impl<'a, T: Copy> Source<'a, T> {
    fn key(&self) -> Option<&'a [u8]> {
        (self.position < self.run.len()).then(|| self.run.key(self.position))
    }
}

/// The keys of all runs in ascending order, each once, with its thing.
#[derive(Debug)]
pub(crate) struct Merge<'a, T> {
    sources: Vec<Source<'a, T>>,
    /// Bytes that all keys have in common.
    shared: usize,
    /// The numbers of the sources' next keys; the greatest for those that have none.
    heads: Vec<u64>,
    /// Who lost at each place; the first is not used.
    losers: Vec<u32>,
    winner: usize,
    last: Option<(u64, &'a [u8])>,
}

impl<'a, T: Copy> Merge<'a, T> {
    /// Merges runs, none of which is empty.
    pub(super) fn new(runs: &'a [Run<T>]) -> Merge<'a, T> {
        let first = runs.first().map_or(&[][..], |run| run.key(0));
        let ends = runs.iter().flat_map(|run| [run.key(0), run.key(run.len() - 1)]);
        let shared = ends.fold(first.len(), |shared, key| common_length(&first[..shared], key));
        let heads = runs.iter().map(|run| head_of(&run.key(0)[shared..])).collect();
        let sources: Vec<Source<'_, T>> = runs.iter().map(|run| Source { run, position: 0 }).collect();
        let losers = vec![0; sources.len()];
        let mut merge = Merge { sources, shared, heads, losers, winner: 0, last: None };
        merge.play_all();
        merge
    }

    fn play_all(&mut self) {
        let count = self.sources.len();
        // The sources stand at the places from `count` on, below those where they meet.
        let mut winners: Vec<usize> = (0..count).chain(0..count).collect();
        for place in (1..count).rev() {
            let (left, right) = (winners[2 * place], winners[2 * place + 1]);
            let (winner, loser) = if self.is_before(left, right) { (left, right) } else { (right, left) };
            winners[place] = winner;
            self.losers[place] = loser as u32;
        }
        self.winner = winners.get(1).copied().unwrap_or_default();
    }

    /// Whether a source's next key comes before another's.
    #[inline]
    fn is_before(&self, left: usize, right: usize) -> bool {
        let (left_head, right_head) = (self.heads[left], self.heads[right]);
        if left_head == right_head { self.is_before_by_key(left, right) } else { left_head < right_head }
    }

    #[cold]
    fn is_before_by_key(&self, left: usize, right: usize) -> bool {
        match (self.sources[left].key(), self.sources[right].key()) {
            // Of equal ones the later first: it is the one that counts.
            (Some(left_key), Some(right_key)) => (left_key, right) < (right_key, left),
            (left_key, _) => left_key.is_some(),
        }
    }

    /// Lets the winner go on to its next key and finds the new winner.
    #[inline]
    fn advance(&mut self) {
        let mut winner = self.winner;
        let source = &mut self.sources[winner];
        source.position += 1;
        self.heads[winner] = source.key().map_or(u64::MAX, |key| head_of(&key[self.shared..]));
        let mut place = (self.sources.len() + winner) / 2;
        while place > 0 {
            let other = self.losers[place] as usize;
            // Without a jump: which of them it is nobody can foretell.
            let is_other = self.is_before(other, winner);
            self.losers[place] = if is_other { winner } else { other } as u32;
            winner = if is_other { other } else { winner };
            place /= 2;
        }
        self.winner = winner;
    }
}

impl<'a, T: Copy> Iterator for Merge<'a, T> {
    type Item = (&'a [u8], T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let source = self.sources.get(self.winner)?;
            let key = source.key()?;
            let (head, thing) = (self.heads[self.winner], source.run.thing(source.position));
            self.advance();
            if self.last.is_some_and(|(last_head, last)| last_head == head && last == key) {
                continue;
            }
            self.last = Some((head, key));
            return Some((key, thing));
        }
    }
}
