//! What the kernel counts and the proxy cannot see.

/// Connections that the kernel dropped before anybody accepted them (`ListenDrops`, which contains `ListenOverflows`), since the machine began, for all
/// listening sockets of this network namespace together; `None` when the kernel does not tell.
pub(crate) fn listen_drops() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/net/netstat").ok()?)
}

/// How many of these fell between two looks; `None` when one of the looks failed: nobody knows then, and 0 would be a lie.
pub(crate) fn drops_between(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

fn parse(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "ListenDrops")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_are_found_by_name() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPHPHits\nTcpExt: 1 2 3 4\nIpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(parse(netstat), Some(3));
        assert_eq!(parse("IpExt: A\nIpExt: 1\n"), None);
        assert!(listen_drops().is_some());
    }

    #[test]
    fn drops_that_were_not_read_are_unknown() {
        assert_eq!(drops_between(Some(3), Some(5)), Some(2));
        assert_eq!((drops_between(None, Some(5)), drops_between(Some(3), None)), (None, None));
    }
}
