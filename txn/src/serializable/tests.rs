//! The textbook anomalies, and random histories against a search for cycles in the whole dependency graph.

use super::*;

const TABLE: u64 = 1;

/// A transaction of a test, on the timeline 1, 2, 3, …
struct Running {
    ticket: Ticket,
    snapshot: Timestamp,
    reads: ReadSet,
    writes: WriteSet,
}

#[derive(Default)]
struct World {
    ssi: Serializability,
    now: Timestamp,
}

impl World {
    fn begin(&mut self) -> Running {
        let ticket = self.ssi.begin(self.now, false);
        Running { ticket, snapshot: self.now, reads: ReadSet::default(), writes: WriteSet::default() }
    }

    fn commit(&mut self, running: Running) -> Result<(), Failure> {
        let Running { ticket, snapshot, reads, writes } = running;
        let end = if writes.is_empty() { self.now } else { self.now + 1 };
        let candidate = Candidate { snapshot, end, reads, writes };
        let result = self.ssi.commit(ticket, candidate, self.now);
        if result.is_ok() {
            self.now = end;
        }
        result
    }
}

impl Running {
    fn read(mut self, key: u8) -> Self {
        self.reads.add_key(TABLE, &[key]);
        self
    }

    fn write(mut self, key: u8) -> Self {
        self.writes.add_key(TABLE, &[key]);
        self
    }
}

#[test]
fn write_skew_is_refused_to_the_second() {
    let mut world = World::default();
    let first = world.begin().read(1).read(2).write(1);
    let second = world.begin().read(1).read(2).write(2);
    assert_eq!(world.commit(first), Ok(()));
    assert_eq!(world.commit(second), Err(Failure::Dangerous));
    let again = world.begin().read(1).read(2).write(2);
    assert_eq!(world.commit(again), Ok(()));
}

#[test]
fn one_antidependency_alone_is_fine() {
    let mut world = World::default();
    let reader = world.begin().read(1).write(2);
    let writer = world.begin().write(1);
    assert_eq!(world.commit(writer), Ok(()));
    assert_eq!(world.commit(reader), Ok(()));
}

#[test]
fn a_range_is_read_with_the_keys_that_are_not_in_it_yet() {
    let mut world = World::default();
    let range = |low: u8, high: u8| (Bound::Included([low].into()), Bound::Excluded([high].into()));
    let mut first = world.begin().write(5);
    first.reads.add_range(TABLE, range(4, 8));
    let mut second = world.begin().write(7);
    second.reads.add_range(TABLE, range(4, 8));
    let mut apart = world.begin().write(8);
    apart.reads.add_range(TABLE, range(8, 9));
    assert_eq!(world.commit(first), Ok(()));
    assert_eq!(world.commit(apart), Ok(()));
    assert_eq!(world.commit(second), Err(Failure::Dangerous));
}

#[test]
fn an_empty_range_meets_nothing() {
    let mut reads = ReadSet::default();
    reads.add_range(TABLE, (Bound::Excluded([9].into()), Bound::Excluded([3].into())));
    let mut writes = WriteSet::default();
    writes.add_key(TABLE, &[5]);
    assert!(!reads.meets(&writes));
    writes.add_key(TABLE, &[9]);
    assert!(!reads.meets(&writes));
}

/// Fekete, O'Neil and O'Neil, "A read-only transaction anomaly under snapshot isolation" (2004).
#[test]
fn a_reader_that_saw_the_third_makes_the_pivot_fail() {
    let mut world = World::default();
    let withdraws = world.begin().read(1).read(2).write(1);
    let deposits = world.begin().read(2).write(2);
    assert_eq!(world.commit(deposits), Ok(()));
    let report = world.begin().read(1).read(2);
    assert_eq!(world.ssi.safety(report.snapshot), Safety::Open, "the pivot is still open");
    assert_eq!(world.commit(report), Ok(()));
    assert_eq!(world.commit(withdraws), Err(Failure::Dangerous));

    // Without the report, or with one that began before the deposit, all is well.
    let withdraws = world.begin().read(1).read(2).write(1);
    let deposits = world.begin().read(2).write(2);
    let early = world.begin().read(1).read(2);
    assert_eq!(world.commit(deposits), Ok(()));
    assert_eq!(world.commit(early), Ok(()));
    assert_eq!(world.commit(withdraws), Ok(()));
}

#[test]
fn a_snapshot_is_safe_when_no_writer_was_open() {
    let mut world = World::default();
    assert_eq!(world.ssi.safety(0), Safety::Safe);
    let writer = world.begin().read(1).write(2);
    let reader = world.ssi.begin(0, true);
    let other = world.begin().write(1);
    assert_eq!(world.commit(other), Ok(()));
    assert_eq!(world.ssi.safety(world.now), Safety::Open);
    assert_eq!(world.commit(writer), Ok(()));
    assert_eq!(world.ssi.safety(1), Safety::Unsafe, "the writer had an edge to a commit that the snapshot saw");
    assert_eq!(world.ssi.safety(world.now), Safety::Safe);
    world.ssi.abort(reader, world.now);
}

#[test]
fn what_nobody_is_concurrent_with_is_forgotten() {
    let mut world = World::default();
    let old = world.begin().read(1);
    for _ in 0..50 {
        let next = world.begin().read(2).write(2);
        assert_eq!(world.commit(next), Ok(()));
    }
    assert_eq!(world.ssi.remembered(), 50);
    world.ssi.abort(old.ticket, world.now);
    let last = world.begin();
    world.ssi.abort(last.ticket, world.now);
    assert!(world.ssi.remembered() <= 1);
}

#[test]
fn memory_is_bounded_and_what_it_costs_is_a_retry() {
    let mut world = World::default();
    let old = world.begin().read(1).write(1);
    let rounds = COST_MAX / KEYS_MAX + 2;
    for _ in 0..rounds {
        let mut next = world.begin().write(2);
        for key in 0..KEYS_MAX as u32 {
            next.reads.add_key(TABLE, &key.to_be_bytes());
        }
        assert_eq!(world.commit(next), Ok(()));
    }
    assert!(world.ssi.cost <= COST_MAX);
    assert_eq!(world.commit(old), Err(Failure::TooOld));
}

#[test]
fn many_keys_become_the_whole_table() {
    let (mut reads, mut writes) = (ReadSet::default(), WriteSet::default());
    for key in 0..=KEYS_MAX as u32 {
        reads.add_key(TABLE, &key.to_be_bytes());
        writes.add_key(TABLE, &key.to_be_bytes());
    }
    assert_eq!((reads.cost(), writes.cost()), (1, 1));
    let mut other = WriteSet::default();
    other.add_key(TABLE, &[255; 9]);
    assert!(reads.meets(&other));
}

/// What a random transaction did, for the twin.
#[derive(Clone)]
struct Past {
    snapshot: Timestamp,
    end: Timestamp,
    reads: Vec<u8>,
    writes: Vec<u8>,
}

/// The dependency graph of Adya (1999), with all three kinds of edges, searched for a cycle.
fn is_serializable(history: &[Past]) -> bool {
    let edge = |one: &Past, other: &Past| {
        let common = |these: &[u8], those: &[u8]| these.iter().any(|key| those.contains(key));
        let writes = !other.writes.is_empty();
        // ww and wr: the other wrote over it, or read what it wrote.
        let after = |read_at: Timestamp| !one.writes.is_empty() && one.end <= read_at;
        (writes && common(&one.writes, &other.writes) && one.end < other.end)
            || (common(&one.writes, &other.reads) && after(other.snapshot))
            // rw: the other ended what it had read.
            || (writes && common(&one.reads, &other.writes) && other.end > one.snapshot)
    };
    let size = history.len();
    let mut reaches: Vec<Vec<bool>> = (0..size)
        .map(|one| (0..size).map(|other| one != other && edge(&history[one], &history[other])).collect())
        .collect();
    for middle in 0..size {
        for from in 0..size {
            for to in 0..size {
                reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
            }
        }
    }
    (0..size).all(|at| !reaches[at][at])
}

#[test]
fn random_histories_are_serializable_and_most_transactions_commit() {
    let (mut committed, mut refused, mut skewed) = (0, 0, 0);
    for seed in 1..=3000_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 8) % bound
        };
        let (mut world, mut open, mut history) = (World::default(), Vec::new(), Vec::<Past>::new());
        let mut unchecked = Vec::<Past>::new();
        for _ in 0..40 {
            match random(5) {
                0 | 1 if open.len() < 4 => open.push((world.begin(), Vec::new(), Vec::new())),
                2..=3 if !open.is_empty() => {
                    let at = random(open.len() as u64) as usize;
                    let (running, reads, writes) = &mut open[at];
                    let key = random(4) as u8;
                    running.reads.add_key(TABLE, &[key]);
                    reads.push(key);
                    if random(2) == 0 {
                        running.writes.add_key(TABLE, &[key]);
                        writes.push(key);
                    }
                }
                4 if !open.is_empty() => {
                    let at = random(open.len() as u64) as usize;
                    let (running, reads, writes) = open.swap_remove(at);
                    let snapshot = running.snapshot;
                    // First committer wins, as the store has it.
                    let late = |past: &&Past| past.end > snapshot && past.writes.iter().any(|key| writes.contains(key));
                    if unchecked.iter().any(|past| late(&past)) {
                        world.ssi.abort(running.ticket, world.now);
                        continue;
                    }
                    let end = world.now + u64::from(!writes.is_empty());
                    let past = Past { snapshot, end, reads, writes };
                    unchecked.push(past.clone());
                    match world.commit(running) {
                        Ok(()) => {
                            committed += 1;
                            history.push(past);
                        }
                        Err(_) => {
                            refused += 1;
                            unchecked.pop();
                            let mut with = history.clone();
                            with.push(past);
                            skewed += u64::from(!is_serializable(&with));
                        }
                    }
                    assert!(is_serializable(&history), "seed {seed}");
                }
                _ => {}
            }
        }
    }
    assert!(committed > 10 * refused, "{committed} committed, {refused} refused");
    assert!(skewed > 0, "some of the {refused} refused would have made a cycle at once");
}
