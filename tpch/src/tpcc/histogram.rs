//! A histogram of latencies that never grows: 64 buckets for each power of two, as in Gil Tene's HdrHistogram, so that a
//! percentile is at most 1.6 % too large, from a nanosecond to centuries.

use std::time::Duration;

/// Buckets per power of two.
const SUB_BUCKETS: u64 = 64;
const SUB_BUCKET_BITS: u32 = SUB_BUCKETS.trailing_zeros();
const BUCKETS: usize = ((64 - SUB_BUCKET_BITS as usize) + 1) * SUB_BUCKETS as usize;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], count: 0, sum_ns: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(nanoseconds);
        self.max_ns = self.max_ns.max(nanoseconds);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Histogram) {
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `percent` of all are not longer than, in milliseconds; `None` if there are none.
    pub fn percentile_ms(&self, percent: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let wanted = ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(upper_bound(bucket).min(self.max_ns) as f64 / 1e6);
            }
        }
        Some(self.max_ns as f64 / 1e6)
    }

    /// The longest duration, in milliseconds.
    pub fn max_ms(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max_ns as f64 / 1e6)
    }

    /// The mean, in milliseconds.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64 / 1e6)
    }
}

/// Values below 64 have buckets of their own; above, the 6 bits behind the highest one choose among 64.
fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS {
        return value as usize;
    }
    let exponent = u64::from(63 - value.leading_zeros() - SUB_BUCKET_BITS);
    let mantissa = (value >> exponent) - SUB_BUCKETS;
    ((exponent + 1) * SUB_BUCKETS + mantissa) as usize
}

/// The largest value in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let (exponent, mantissa) = (bucket / SUB_BUCKETS - 1, bucket % SUB_BUCKETS);
    ((SUB_BUCKETS + mantissa) << exponent) + ((1 << exponent) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_within_its_bounds_and_bounds_are_close() {
        let mut values: Vec<u64> = (0..2_000).collect();
        values.extend((0..58).map(|bit| (1 << bit) + 12_345));
        for value in values.into_iter().chain([u64::MAX, u64::MAX - 1]) {
            let upper = upper_bound(bucket(value));
            assert!(upper >= value, "{value} above {upper}");
            assert!((upper - value) as f64 <= value as f64 / 64.0, "{value} in a bucket up to {upper}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_durations_to_two_digits() {
        let mut histogram = Histogram::default();
        for microseconds in 1..=1_000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        for (percent, milliseconds) in [(50.0, 0.5), (95.0, 0.95), (99.0, 0.99), (99.9, 0.999), (100.0, 1.0)] {
            let found = histogram.percentile_ms(percent).expect("there are some");
            assert!(found >= milliseconds && found <= milliseconds * 1.016, "p{percent} is {found}");
        }
        assert_eq!((histogram.count(), histogram.max_ms()), (1_000, Some(1.0)));
        assert!((histogram.mean_ms().expect("there are some") - 0.5005).abs() < 1e-9);
    }

    #[test]
    fn merged_histograms_are_that_of_all() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_millis(1));
        other.record(Duration::from_millis(100));
        one.merge(&other);
        assert_eq!((one.count(), one.max_ms()), (2, Some(100.0)));
        assert!(one.percentile_ms(50.0).expect("there are some") < 1.02);
        assert_eq!(Histogram::default().percentile_ms(50.0), None);
    }
}
