//! Failed logins are slowed down, so that a password cannot be found by trying.
//!
//! After [`FREE_FAILURES`] failures of one address with one user name, each further attempt has to wait: one second, then
//! two, four, up to a minute. A success forgets the failures. Both parts count together, so that nobody can lock
//! another's account by failing in their name from elsewhere.
//!
//! Invariant: the memory for this is bounded; when it is full, what failed longest ago is forgotten first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Status;

use crate::status::refuse;

/// A person mistypes this often at most.
const FREE_FAILURES: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(60);
/// After this time without a failure all is forgiven.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
const ENTRIES_MAX: usize = 10_000;
/// Longer user names are none; their beginning is enough to tell attempts apart.
const NAME_BYTES_MAX: usize = 64;

/// Who fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    address: Option<IpAddr>,
    user: String,
}

impl Attempt {
    pub(crate) fn new(address: Option<IpAddr>, user: &str) -> Self {
        Self { address, user: user[..user.floor_char_boundary(NAME_BYTES_MAX)].to_owned() }
    }
}

struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// When the next attempt may be made.
    fn next(&self) -> Instant {
        let doublings = self.count.saturating_sub(FREE_FAILURES);
        let wait = match doublings {
            0 => Duration::ZERO,
            _ => Duration::from_secs(1 << (doublings - 1).min(6)).min(WAIT_MAX),
        };
        self.last + wait
    }
}

/// The failed logins of the last minutes.
#[derive(Default)]
pub(crate) struct Throttle {
    failures: Mutex<HashMap<Attempt, Failures>>,
}

impl Throttle {
    /// Fails if the attempt comes too soon after those that failed.
    pub(crate) fn admit(&self, attempt: &Attempt) -> Result<(), Status> {
        self.admit_at(attempt, Instant::now())
    }

    fn admit_at(&self, attempt: &Attempt, now: Instant) -> Result<(), Status> {
        let next = self.failures.lock().get(attempt).map(Failures::next);
        match next.map(|next| next.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => {
                let seconds = wait.as_secs() + 1;
                Err(refuse("53300", "too many failed logins").hint(format!("try again in {seconds} s")).into())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn failed(&self, attempt: Attempt) {
        self.failed_at(attempt, Instant::now());
    }

    fn failed_at(&self, attempt: Attempt, now: Instant) {
        let mut failures = self.failures.lock();
        if failures.len() >= ENTRIES_MAX && !failures.contains_key(&attempt) {
            failures.retain(|_, failures| now.saturating_duration_since(failures.last) < FORGOTTEN_AFTER);
            if failures.len() >= ENTRIES_MAX {
                let oldest = failures.iter().min_by_key(|(_, failures)| failures.last).map(|(who, _)| who.clone());
                oldest.map(|oldest| failures.remove(&oldest));
            }
        }
        let entry = failures.entry(attempt).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(entry.last) >= FORGOTTEN_AFTER {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
    }

    pub(crate) fn succeeded(&self, attempt: &Attempt) {
        self.failures.lock().remove(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(user: &str) -> Attempt {
        Attempt::new(Some(IpAddr::from([10, 0, 0, 1])), user)
    }

    #[test]
    fn attempts_wait_longer_and_longer_and_a_success_forgives() {
        let (throttle, ann, mut now) = (Throttle::default(), attempt("ann"), Instant::now());
        for _ in 0..FREE_FAILURES {
            throttle.admit_at(&ann, now).expect("free");
            throttle.failed_at(ann.clone(), now);
        }
        throttle.admit_at(&ann, now).expect("the last free one");
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            throttle.failed_at(ann.clone(), now);
            let early = now + Duration::from_secs(wait) - Duration::from_millis(1);
            let status = throttle.admit_at(&ann, early).expect_err("too soon");
            assert!(status.message().contains("try again in"), "{status:?}");
            now += Duration::from_secs(wait);
            throttle.admit_at(&ann, now).expect("waited");
        }
        throttle.admit_at(&attempt("bob"), now).expect("somebody else");
        let elsewhere = Attempt::new(Some(IpAddr::from([10, 0, 0, 2])), "ann");
        throttle.admit_at(&elsewhere, now).expect("from elsewhere");
        throttle.succeeded(&ann);
        assert!(throttle.failures.lock().is_empty());
    }

    #[test]
    fn failures_are_forgotten_in_time_and_bounded_in_number() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for index in 0..ENTRIES_MAX + 100 {
            throttle.failed_at(attempt(&index.to_string()), now + Duration::from_micros(index as u64));
        }
        assert_eq!(throttle.failures.lock().len(), ENTRIES_MAX);
        assert!(!throttle.failures.lock().contains_key(&attempt("0")), "the oldest went first");
        let later = now + FORGOTTEN_AFTER + Duration::from_secs(1);
        throttle.failed_at(attempt("new"), later);
        assert_eq!(throttle.failures.lock().len(), 1);
        let long = Attempt::new(None, &"ü".repeat(1000));
        assert_eq!(long.user.len(), NAME_BYTES_MAX);
    }
}
