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

use std::hint::select_unpredictable;

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

/// A source at a place of the tree, with the number of its next key; the greatest if it has none.
#[derive(Debug, Clone, Copy)]
struct Player {
    head: u64,
    source: u32,
}

/// The keys of all runs in ascending order, each once, with its thing.
#[derive(Debug)]
pub(crate) struct Merge<'a, T> {
    sources: Vec<Source<'a, T>>,
    /// Bytes that all keys have in common.
    shared: usize,
    /// Who lost at each place; the first is not used.
    losers: Vec<Player>,
    winner: Player,
    last: Option<(u64, &'a [u8])>,
}

impl<'a, T: Copy> Merge<'a, T> {
    /// Merges runs, none of which is empty.
    pub(super) fn new(runs: &'a [Run<T>]) -> Merge<'a, T> {
        let first = runs.first().map_or(&[][..], |run| run.key(0));
        let ends = runs.iter().flat_map(|run| [run.key(0), run.key(run.len() - 1)]);
        let shared = ends.fold(first.len(), |shared, key| common_length(&first[..shared], key));
        let sources: Vec<Source<'_, T>> = runs.iter().map(|run| Source { run, position: 0 }).collect();
        let nobody = Player { head: u64::MAX, source: 0 };
        let losers = vec![nobody; sources.len()];
        let mut merge = Merge { sources, shared, losers, winner: nobody, last: None };
        merge.play_all();
        merge
    }

    fn player(&self, source: usize) -> Player {
        let key = self.sources[source].key();
        Player { head: key.map_or(u64::MAX, |key| head_of(&key[self.shared..])), source: source as u32 }
    }

    fn play_all(&mut self) {
        let count = self.sources.len();
        let players: Vec<Player> = (0..count).map(|source| self.player(source)).collect();
        // The sources stand at the places from `count` on, below those where they meet.
        let mut winners = [players.clone(), players].concat();
        for place in (1..count).rev() {
            let (left, right) = (winners[2 * place], winners[2 * place + 1]);
            let (winner, loser) = if self.is_before(left, right) { (left, right) } else { (right, left) };
            (winners[place], self.losers[place]) = (winner, loser);
        }
        self.winner = winners.get(1).copied().unwrap_or(self.winner);
    }

    /// Whether a source's next key comes before another's.
    #[inline]
    fn is_before(&self, left: Player, right: Player) -> bool {
        if left.head == right.head { self.is_before_by_key(left, right) } else { left.head < right.head }
    }

    #[cold]
    fn is_before_by_key(&self, left: Player, right: Player) -> bool {
        match (self.sources[left.source as usize].key(), self.sources[right.source as usize].key()) {
            // Of equal ones the later first: it is the one that counts.
            (Some(left_key), Some(right_key)) => (left_key, right.source) < (right_key, left.source),
            (left_key, _) => left_key.is_some(),
        }
    }

    /// Lets the winner go on to its next key and finds the new winner.
    #[inline]
    fn advance(&mut self) {
        let source = self.winner.source as usize;
        self.sources[source].position += 1;
        let mut winner = self.player(source);
        let mut place = (self.sources.len() + source) / 2;
        while place > 0 {
            let other = self.losers[place];
            // Without a jump: which of them it is nobody can foretell.
            let is_other = self.is_before(other, winner);
            self.losers[place] = select_unpredictable(is_other, winner, other);
            winner = select_unpredictable(is_other, other, winner);
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
            let Player { head, source } = self.winner;
            let source = self.sources.get(source as usize)?;
            let (key, thing) = (source.key()?, source.run.thing(source.position));
            self.advance();
            if self.last.is_some_and(|(last_head, last)| last_head == head && last == key) {
                continue;
            }
            self.last = Some((head, key));
            return Some((key, thing));
        }
    }
}
