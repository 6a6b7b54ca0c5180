//! The names of what the cache has let go unused, found without looking through all of them.
//!
//! ```text
//!   order      a 1 │ b 2 │ c 3 │ b 4      the oldest go when there are too many
//!   newest     a → 1   c → 3   b → 4      what `take` asks, and takes from
//! ```
//! A name that was taken stays in the order until its turn comes, and may be there a second time by then: the numbers tell.

use std::collections::{HashMap, VecDeque};

use super::SlotName;

/// So many names are remembered, those included that were taken.
const GHOSTS_MAX: usize = 4096;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    order: VecDeque<(SlotName, u64)>,
    newest: HashMap<SlotName, u64>,
    added: u64,
}

impl Ghosts {
    /// Remembers a name.
    pub(super) fn add(&mut self, name: SlotName) {
        self.added += 1;
        self.order.push_back((name, self.added));
        self.newest.insert(name, self.added);
        if self.order.len() > GHOSTS_MAX
            && let Some((oldest, number)) = self.order.pop_front()
            && self.newest.get(&oldest) == Some(&number)
        {
            self.newest.remove(&oldest);
        }
    }

    /// Forgets a name. Tells whether it was known.
    pub(super) fn take(&mut self, name: &SlotName) -> bool {
        self.newest.remove(name).is_some()
    }

    /// Forgets what was let go of a segment.
    pub(super) fn remove_segment(&mut self, segment: u64) {
        self.order.retain(|((owner, _), _)| *owner != segment);
        self.newest.retain(|(owner, _), _| *owner != segment);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    fn name(column: usize) -> SlotName {
        (column as u64 / 1000, Part::Column(column))
    }

    #[test]
    fn the_last_names_are_known_once_each() {
        let mut ghosts = Ghosts::default();
        (0..2 * GHOSTS_MAX).for_each(|column| ghosts.add(name(column)));
        assert_eq!((ghosts.order.len(), ghosts.newest.len()), (GHOSTS_MAX, GHOSTS_MAX));
        assert!(!ghosts.take(&name(GHOSTS_MAX - 1)) && ghosts.take(&name(GHOSTS_MAX)));
        assert!(!ghosts.take(&name(GHOSTS_MAX)), "it was taken");
        assert!(!ghosts.take(&(7, Part::KeyIndex)));
    }

    #[test]
    fn a_name_that_comes_again_stays_as_long_as_a_new_one() {
        let mut ghosts = Ghosts::default();
        ghosts.add(name(0));
        assert!(ghosts.take(&name(0)));
        (1..GHOSTS_MAX).for_each(|column| ghosts.add(name(column)));
        ghosts.add(name(0));
        assert_eq!(
            (ghosts.order.front(), ghosts.order.len()),
            (Some(&(name(1), 2)), GHOSTS_MAX),
            "the first of them went"
        );
        assert!(ghosts.take(&name(0)), "the second did not go with it");
    }

    #[test]
    fn names_of_a_segment_go_with_it() {
        let mut ghosts = Ghosts::default();
        (0..2500).for_each(|column| ghosts.add(name(column)));
        ghosts.remove_segment(1);
        assert_eq!((ghosts.order.len(), ghosts.newest.len()), (1500, 1500));
        assert!(ghosts.take(&name(999)) && !ghosts.take(&name(1000)) && ghosts.take(&name(2000)));
    }
}
