//! What is told: to which rollout it belongs.

use gapless_core::node::{GroupId, InstanceId};
use gapless_core::notice::{Notice, RolloutNumber};
use gapless_core::release::ReleaseNumber;

#[test]
fn a_fact_knows_its_rollout_where_it_has_one() {
    let rollout = RolloutNumber(4);
    assert_eq!(Notice::Promoted { rollout }.rollout(), Some(rollout));
    assert_eq!(Notice::Drained { rollout, cut: 0 }.rollout(), Some(rollout));
    let node = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) }.node(0);
    assert_eq!(Notice::NodeReplaced { node }.rollout(), None);
}
