//! Names, numbers, digests and times as text: what is written reads back, and what is none is refused.

use gapless_core::digest::Digest;
use gapless_core::effect::{EffectId, EffectKind, Task};
use gapless_core::name::{PART_LIMIT, ServiceName, is_part};
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::RolloutNumber;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::route::Generation;
use gapless_core::time::{Instant, WeeklyWindow};
use std::time::Duration;

const DIGITS: &str = "00ff0a9c00000000000000000000000000000000000000000000000000000001";

fn digest() -> Digest {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&[0x00, 0xff, 0x0a, 0x9c]);
    bytes[31] = 1;
    Digest(bytes)
}

#[test]
fn a_digest_reads_as_it_is_written() {
    assert_eq!(digest().hex(), DIGITS);
    assert_eq!(digest().short(), "00ff0a9c0000");
    assert_eq!(digest().to_string(), format!("sha256:{DIGITS}"));
    assert_eq!(format!("{:?}", digest()), "sha256:00ff0a9c0000");
    assert_eq!(digest().to_string().parse(), Ok(digest()));
}

#[test]
fn what_is_no_digest_is_refused() {
    let written = |digits: &str| format!("sha256:{digits}");
    let upper = DIGITS.to_uppercase();
    let signed = format!("+0{}", &DIGITS[2..]);
    let longer = format!("{DIGITS}00");
    for text in
        [DIGITS.to_string(), written(&upper), written(&signed), written(&longer), written(&DIGITS[2..]), written(&DIGITS.replace('f', "g"))]
    {
        let refused = text.parse::<Digest>().expect_err("no digest");
        assert_eq!(refused.to_string(), format!("`{text}` is not a digest: write `sha256:` and 64 hexadecimal digits"));
    }
}

#[test]
fn groups_and_nodes_read_as_they_are_written() {
    let group = GroupId { release: ReleaseNumber(7), instance: InstanceId(12) };
    assert_eq!(group.to_string(), "r7-i12");
    assert_eq!("r7-i12".parse(), Ok(group));
    assert_eq!(group.node(3).to_string(), "r7-i12-n3");
    assert_eq!("r7-i12-n3".parse(), Ok(group.node(3)));
    for text in ["", "7-i12-n0", "r7-n0", "r7-i12", "r7-i-n0", "rx-i1-n0", "r7-i12-nx"] {
        let refused = text.parse::<NodeId>().expect_err("no node");
        assert!(refused.to_string().starts_with("not a node: "), "{refused}");
    }
}

#[test]
fn service_names_read_as_they_are_written() {
    let name: ServiceName = "hello/web-2".parse().expect("a name");
    assert_eq!((name.project(), name.service(), name.to_string().as_str()), ("hello", "web-2", "hello/web-2"));
    let longest = "a".repeat(PART_LIMIT);
    assert!(is_part(&longest) && !is_part(&format!("{longest}a")));
    for text in ["hello", "/web", "hello/", "Hello/web", "2hello/web", "hello/web-", "hello/we_b", "hello/wéb", "a/b/c"] {
        let refused = text.parse::<ServiceName>().expect_err("no name");
        assert!(refused.to_string().starts_with(&format!("`{text}` is not a service name")), "{refused}");
    }
}

#[test]
fn numbers_are_told_apart() {
    assert_eq!(
        [
            ReleaseNumber(1).to_string(),
            ArtifactVersion(2).to_string(),
            Generation(3).to_string(),
            EffectId(4).to_string(),
            RolloutNumber(5).to_string()
        ],
        ["r1", "v2", "g3", "e4", "5"]
    );
    assert_eq!(Generation(3).next(), Generation(4));
    assert_eq!(EffectKind::ALL.map(EffectKind::name), ["EnsureGroup", "Route", "Drain", "DestroyNodes", "RunTask", "Analyse", "Notify"]);
    assert_eq!(Task::ALL.map(|task| task.to_string()), ["release-command", "before-shift", "after-shift"]);
}

#[test]
fn instants_end_at_the_end_of_time() {
    let second = Duration::from_secs(1);
    assert_eq!(Instant(5).after(second), Instant(1005));
    assert_eq!(Instant(u64::MAX - 1).after(second), Instant(u64::MAX));
    assert_eq!(Instant(5).after(Duration::MAX), Instant(u64::MAX));
    assert_eq!((Instant(1005).since(Instant(5)), Instant(5).since(Instant(1005))), (second, Duration::ZERO));
}

/// Minutes and seconds after the Monday of the week in which time began, a Thursday.
fn at(day: u64, minute: u64, second: u64) -> Instant {
    Instant((((day + 7 - 3) * 24 * 60 + minute) * 60 + second) * 1000)
}

#[test]
fn a_window_of_the_week_ends_when_it_says() {
    let friday = WeeklyWindow { from: 4 * 1440 + 16 * 60, until: 5 * 1440 };
    assert_eq!(friday.ends_after(at(4, 15 * 60 + 59, 59)), None);
    assert_eq!(friday.ends_after(at(4, 16 * 60, 0)), Some(at(5, 0, 0)));
    assert_eq!(friday.ends_after(at(4, 23 * 60 + 59, 59)), Some(at(5, 0, 0)));
    assert_eq!(friday.ends_after(at(5, 0, 0)), None);
    assert_eq!(friday.to_string(), "Fri 16:00 - Sat 00:00");
}

#[test]
fn a_window_may_lie_across_the_end_of_the_week() {
    let weekend = WeeklyWindow { from: 4 * 1440 + 16 * 60 + 5, until: 8 * 60 + 30 };
    assert_eq!(weekend.ends_after(at(6, 12 * 60, 7)), Some(at(7, 8 * 60 + 30, 0)));
    assert_eq!(weekend.ends_after(at(7, 8 * 60 + 29, 59)), Some(at(7, 8 * 60 + 30, 0)));
    assert_eq!(weekend.ends_after(at(7, 8 * 60 + 30, 0)), None);
    assert_eq!(weekend.to_string(), "Fri 16:05 - Mon 08:30");
    let empty = WeeklyWindow { from: 10, until: 10 };
    assert_eq!((0..7).filter_map(|day| empty.ends_after(at(day, 10, 0))).count(), 0);
}
