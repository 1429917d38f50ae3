//! Numbers that look random and are the same in every run.

/// Marsaglia's xorshift with 64 bits of state ("Xorshift RNGs", 2003).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number, below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    /// A number as arguments often are: all bits, few bits, small, or all ones.
    pub const fn argument(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next(),
            1 => 1 << self.below(64),
            2 => self.below(16),
            _ => u64::MAX,
        }
    }
}
