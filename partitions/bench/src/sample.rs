//! Minimum, average, maximum and first of many samples, kept without memory for each.

use bulkhead_rt::println;

/// What is known of the samples so far.
pub struct Samples {
    first: i64,
    min: i64,
    max: i64,
    sum: i64,
    count: i64,
}

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Self { first: 0, min: i64::MAX, max: i64::MIN, sum: 0, count: 0 }
    }

    /// Adds one, in ticks.
    pub fn add(&mut self, sample: i64) {
        if self.count == 0 {
            self.first = sample;
        }
        self.min = self.min.min(sample);
        self.max = self.max.max(sample);
        self.sum += sample;
        self.count += 1;
    }

    /// The smallest, in ticks.
    pub const fn min(&self) -> i64 {
        self.min
    }

    /// Prints the line that the host reads; the average is rounded down.
    pub fn print(&self, name: &str) {
        println!(
            "BENCH {name} min={} avg={} max={} first={}",
            self.min,
            self.sum.div_euclid(self.count),
            self.max,
            self.first
        );
    }
}
