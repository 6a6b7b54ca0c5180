//! How a server's log tells of panics: in one line each, and not more often than somebody would read.
//!
//! A panic in a statement is an error of that request, and its client is told. The usual report, a backtrace of sixty lines on
//! standard error, would let a client fill the disk. So each place in the program reports at most once in a while, and then
//! says how often it happened meanwhile. The backtrace is there at log level debug, and so is all of a panic in the decoder of
//! what a client sent: it asserts on what contradicts itself, which is no fault of the server's.

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a place reports, at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// Reports panics in the log from now on.
pub(super) fn log_panics() {
    let places = Mutex::new(Places::default());
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        if rustydb_flight::is_decoding() {
            tracing::debug!("a client sent what cannot be decoded: panic at {place}: {}", message(info));
            return;
        }
        let due = places.lock().unwrap_or_else(PoisonError::into_inner).due(&place, Instant::now());
        let Some(unreported) = due else { return };
        let more = match unreported {
            0 => String::new(),
            _ => format!("; {unreported} more there since the last report"),
        };
        tracing::error!("panic at {place}: {}{more}", message(info));
        // Making one takes long, so only where it is asked for.
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!("{}", Backtrace::force_capture());
        }
    }));
}

/// What the panic said, in one line.
fn message(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or("it says nothing").escape_debug().to_string()
}

/// Places that have panicked, of which a program has few.
#[derive(Default)]
struct Places(HashMap<String, Place>);

struct Place {
    reported: Instant,
    unreported: u64,
}

impl Places {
    /// Notes a panic. If it is to be reported: how many were not, before it.
    fn due(&mut self, place: &str, now: Instant) -> Option<u64> {
        match self.0.get_mut(place) {
            Some(known) if now.saturating_duration_since(known.reported) < INTERVAL => {
                known.unreported += 1;
                None
            }
            Some(known) => {
                known.reported = now;
                Some(std::mem::take(&mut known.unreported))
            }
            None => {
                self.0.insert(place.to_owned(), Place { reported: now, unreported: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reports_once_in_a_while_and_says_how_often_it_was() {
        let (mut places, begin) = (Places::default(), Instant::now());
        assert_eq!(places.due("a.rs:1:1", begin), Some(0));
        assert_eq!(places.due("a.rs:1:1", begin), None);
        assert_eq!(places.due("b.rs:1:1", begin), Some(0), "another place");
        assert_eq!(places.due("a.rs:1:1", begin + INTERVAL / 2), None);
        assert_eq!(places.due("a.rs:1:1", begin + INTERVAL), Some(2));
        assert_eq!(places.due("a.rs:1:1", begin + INTERVAL * 3), Some(0));
    }
}
