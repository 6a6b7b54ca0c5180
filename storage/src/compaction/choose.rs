//! Which segments are worth merging.
//!
//! Three reasons, tried in this order:
//! * **dead rows**: a quarter of a segment is dead, so that scans pay for what nobody sees;
//! * **size tiers**: [`FAN_IN`] segments of one size class (a class is a factor of [`FAN_IN`]), and everything smaller,
//!   become one of the next class, so that a row is rewritten once for each class: logarithmic write amplification;
//! * **overlap**: more than [`FAN_IN`] big segments cover one key, so that a look-up of it asks them all. Those that
//!   cover the busiest key are merged into as many that do not overlap.
//!
//! A choice never has more than [`INPUT_ROWS_MAX`] rows, or as many as there is memory for, which bounds the memory and the
//! time of a merge.

use crate::segment::SEGMENT_ROWS_MAX;

/// So many of a kind are merged.
const FAN_IN: usize = 4;

/// Most segments of a merge.
const INPUTS_MAX: usize = 32;

/// Most rows of a merge.
pub(crate) const INPUT_ROWS_MAX: u64 = 6 * SEGMENT_ROWS_MAX as u64;

/// Segments with this share of the most rows of a merge are big, half a million if memory allows: only dead rows and
/// overlap are reasons to touch them again.
const BIG_SHARE: u64 = 12;

/// Fewer dead rows than this are not worth a rewrite.
const DEAD_ROWS_MIN: u64 = 1024;

/// What choosing has to know about a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) rows: u64,
    pub(crate) live: u64,
    pub(crate) first_key: &'a [u8],
    pub(crate) last_key: &'a [u8],
}

impl Shape<'_> {
    fn has_too_many_dead(&self, thorough: bool) -> bool {
        let dead = self.rows - self.live;
        self.live == 0 || (thorough && dead > 0) || (dead >= DEAD_ROWS_MIN && dead * 4 >= self.rows)
    }

    /// Size class: 0 below a thousand rows, one more for each factor of [`FAN_IN`].
    fn class(&self) -> u32 {
        class_of(self.live)
    }
}

fn class_of(rows: u64) -> u32 {
    (rows / 1024).checked_ilog(FAN_IN as u64).map_or(0, |class| class + 1)
}

/// The indexes of the segments to merge; empty if all is well. `thorough`: any dead row is reason enough. `rows_max`: the
/// most rows of a merge that has more than one input.
pub(crate) fn choose(segments: &[Shape<'_>], thorough: bool, rows_max: u64) -> Vec<usize> {
    // `one`: rewriting a single segment is worth it, and possible however large it is.
    let bounded = |candidates: Vec<usize>, one: bool| {
        let mut rows = 0;
        let fits = |(position, index): &(usize, usize)| {
            rows += segments[*index].rows;
            rows <= rows_max || (one && *position == 0)
        };
        let chosen = candidates.into_iter().take(INPUTS_MAX).enumerate().take_while(fits);
        let chosen: Vec<usize> = chosen.map(|(_, index)| index).collect();
        if one || chosen.len() > 1 { chosen } else { Vec::new() }
    };
    let is_big = |index: &usize| segments[*index].live >= rows_max / BIG_SHARE;
    let all = || 0..segments.len();
    let dead: Vec<usize> = all().filter(|index| segments[*index].has_too_many_dead(thorough)).collect();
    if !dead.is_empty() {
        return bounded(dead, true);
    }
    let mut small: Vec<usize> = all().filter(|index| !is_big(index)).collect();
    small.sort_by_key(|index| segments[*index].live);
    for class in 0..=u64::BITS {
        let up_to: Vec<usize> = small.iter().copied().filter(|index| segments[*index].class() <= class).collect();
        let of_class = up_to.iter().filter(|index| segments[**index].class() == class).count();
        let merged_class = class_of(up_to.iter().map(|index| segments[*index].live).sum());
        if of_class >= FAN_IN || (up_to.len() >= FAN_IN && of_class > 0 && merged_class > class) {
            return bounded(up_to, false);
        }
    }
    let mut covering = busiest(segments, all().filter(is_big));
    if covering.len() > FAN_IN {
        covering.sort_by_key(|index| segments[*index].rows);
        return bounded(covering, false);
    }
    Vec::new()
}

/// The segments that cover the key which most of them cover.
fn busiest(segments: &[Shape<'_>], candidates: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
    // Depth only grows where a segment begins, so the busiest key is some segment's first.
    let covering = |key: &[u8]| -> Vec<usize> {
        candidates
            .clone()
            .filter(|index| segments[*index].first_key <= key && key <= segments[*index].last_key)
            .collect()
    };
    candidates.clone().map(|index| covering(segments[index].first_key)).max_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(segments: &[Shape<'_>], thorough: bool) -> Vec<usize> {
        super::choose(segments, thorough, INPUT_ROWS_MAX)
    }

    const FULL: u64 = SEGMENT_ROWS_MAX as u64;

    fn shape<'a>(rows: u64, live: u64, first_key: &'a [u8], last_key: &'a [u8]) -> Shape<'a> {
        Shape { rows, live, first_key, last_key }
    }

    #[test]
    fn a_few_sound_segments_are_left_alone() {
        assert!(choose(&[], false).is_empty());
        assert!(choose(&[shape(10, 10, b"a", b"b"); 3], true).is_empty());
        assert!(choose(&[shape(FULL, FULL, b"a", b"z"); 4], true).is_empty());
        let disjoint: Vec<[u8; 2]> = (0..100).map(|number| [number, 0]).collect();
        let disjoint: Vec<Shape<'_>> = disjoint.iter().map(|key| shape(FULL, FULL, key, key)).collect();
        assert!(choose(&disjoint, false).is_empty(), "a sorted load");
    }

    #[test]
    fn four_of_a_size_are_merged_with_everything_smaller() {
        let mut segments = vec![shape(100, 100, b"a", b"z"); 3];
        segments.push(shape(200_000, 200_000, b"a", b"z"));
        assert!(choose(&segments, false).is_empty(), "the big one is no reason to rewrite");
        segments.push(shape(120, 120, b"a", b"z"));
        assert_eq!(choose(&segments, false), [0, 1, 2, 4]);
        segments.extend([shape(200_000, 200_000, b"a", b"z"); 3]);
        assert_eq!(choose(&segments, false), [0, 1, 2, 4], "small ones first");
    }

    #[test]
    fn a_merge_is_worth_it_only_when_its_result_is_of_a_higher_class() {
        let segments = [shape(100, 100, b"a", b"z"); 2];
        let mut with_one_larger = segments.to_vec();
        with_one_larger.push(shape(5_000, 5_000, b"a", b"z"));
        assert!(choose(&with_one_larger, false).is_empty());
    }

    #[test]
    fn dead_rows_are_removed() {
        let segments = [shape(FULL, FULL, b"a", b"b"), shape(FULL, FULL * 3 / 4, b"c", b"d"), shape(7, 0, b"e", b"f")];
        assert_eq!(choose(&segments, false), [1, 2]);
        assert!(choose(&[shape(100, 60, b"a", b"b")], false).is_empty(), "too few to matter");
        assert_eq!(choose(&[shape(100, 99, b"a", b"b")], true), [0], "unless asked for");
    }

    #[test]
    fn big_segments_that_cover_one_key_are_merged_a_bounded_number_at_a_time() {
        let mut segments = vec![shape(FULL, FULL, b"a", b"z"); 40];
        segments.push(shape(FULL, FULL, b"zz", b"zzz"));
        let chosen = choose(&segments, false);
        assert_eq!(chosen.len(), 6);
        assert!(!chosen.contains(&40));
    }

    #[test]
    fn with_little_memory_merges_are_smaller_and_dead_rows_go_nevertheless() {
        let rows_max = 1200;
        let dead = [shape(FULL, FULL / 2, b"a", b"b"), shape(FULL, FULL / 2, b"c", b"d")];
        assert_eq!(super::choose(&dead, false, rows_max), [0]);
        let small = [shape(90, 90, b"a", b"z"); 20];
        assert_eq!(super::choose(&small, false, rows_max).len(), 13);
        let big = [shape(700, 700, b"a", b"z"); 20];
        assert!(super::choose(&big, false, rows_max).is_empty(), "no two of them fit");
    }
}
