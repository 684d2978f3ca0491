//! How much one client's address may have: connections, and requests in a time. The tables are bounded, and an attacker who fills one only makes it forget who had little.

use crate::sync::lock;
use gapless_wire::settings::Rate;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How many addresses a table holds: some 5 MB.
const ADDRESS_LIMIT: usize = 65_536;

/// Whom limits count as one client: of version 6, everybody gets at least 2^64 addresses, so their common part counts.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The connections by address.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<IpAddr, u32>>);

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    all: Arc<Connections>,
    client: IpAddr,
}

impl Connections {
    /// Counts one more, unless it would be one too many.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, limit: u32) -> Option<Connected> {
        let client = client_of(address);
        let mut counts = lock(&self.0);
        let count = counts.entry(client).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Connected { all: self.clone(), client })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut counts = lock(&self.all.0);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// The requests by address, each as a bucket that fills with time and that a request takes from.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths of a request.
    left: u64,
    at: Instant,
}

impl Bucket {
    fn filled(self, rate: Rate, now: Instant) -> Self {
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let left = self.left.saturating_add(passed.saturating_mul(u64::from(rate.per_second))).min(u64::from(rate.burst) * 1000);
        Self { left, at: now }
    }
}

impl Rates {
    /// Whether one more request may come now.
    pub(crate) fn may_come(&self, address: IpAddr, rate: Rate, now: Instant) -> bool {
        let full = Bucket { left: u64::from(rate.burst) * 1000, at: now };
        let mut buckets = lock(&self.0);
        if buckets.len() >= ADDRESS_LIMIT {
            // Whose bucket is full is as good as unknown.
            buckets.retain(|_, bucket| bucket.filled(rate, now).left < full.left);
            if buckets.len() >= ADDRESS_LIMIT {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(client_of(address)).or_insert(full);
        *bucket = bucket.filled(rate, now);
        let may = bucket.left >= 1000;
        bucket.left -= if may { 1000 } else { 0 };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_lets_a_burst_in_and_then_what_it_says() {
        let (rates, rate, begun) = (Rates::default(), Rate { per_second: 10, burst: 3 }, Instant::now());
        let come = |after_ms: u64, address: [u8; 4]| rates.may_come(address.into(), rate, begun + Duration::from_millis(after_ms));
        assert_eq!([0, 0, 0, 0, 50, 100, 100].map(|at| come(at, [10, 0, 0, 1])), [true, true, true, false, false, true, false]);
        assert!(come(100, [10, 0, 0, 2]), "another address has its own");
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let connections = Arc::new(Connections::default());
        let (one, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let first = connections.enter(one, 2);
        let second = connections.enter(other, 2);
        assert!(first.is_some() && second.is_some() && connections.enter(one, 2).is_none(), "both are one client");
        drop(first);
        assert!(connections.enter(one, 2).is_some());
        drop(second);
        assert!(lock(&connections.0).is_empty());
    }
}
