//! What is told: to which rollout it belongs.

use crate::states::group;
use gapless_core::notice::{Notice, RolloutNumber};

#[test]
fn a_fact_knows_its_rollout_where_it_has_one() {
    let rollout = RolloutNumber(4);
    assert_eq!(Notice::Promoted { rollout }.rollout(), Some(rollout));
    assert_eq!(Notice::Drained { rollout, cut: 0 }.rollout(), Some(rollout));
    assert_eq!(Notice::NodeReplaced { node: group(1).node(0) }.rollout(), None);
}
