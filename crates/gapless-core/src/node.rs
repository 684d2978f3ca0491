//! Groups and their nodes.

use crate::release::ReleaseNumber;
use core::fmt;

/// Names one group for ever: it is counted up per service and never used again, so that a late or doubled effect can never touch a later group of the
/// same release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// A group of nodes of one release of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The release that its nodes run.
    pub release: ReleaseNumber,
    /// Which group of that release.
    pub instance: InstanceId,
}

/// A node of a group of a service. Ordinals are counted up inside the group and never used again: a node is replaced, never repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Its group.
    pub group: GroupId,
    /// Its place in the group, from 0.
    pub ordinal: u32,
}

impl GroupId {
    /// The node of this group with this ordinal.
    #[must_use]
    pub fn node(self, ordinal: u32) -> NodeId {
        NodeId { group: self, ordinal }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-i{}", self.release, self.instance.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-n{}", self.group, self.ordinal)
    }
}

/// Why a text is no name of a node or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANode;

impl fmt::Display for NotANode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a node: nodes are named `r<release>-i<instance>-n<ordinal>`, groups `r<release>-i<instance>`")
    }
}

impl core::error::Error for NotANode {}

impl core::str::FromStr for GroupId {
    type Err = NotANode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (release, instance) = text.strip_prefix('r').and_then(|t| t.split_once("-i")).ok_or(NotANode)?;
        Ok(GroupId {
            release: ReleaseNumber(release.parse().map_err(|_| NotANode)?),
            instance: InstanceId(instance.parse().map_err(|_| NotANode)?),
        })
    }
}

impl core::str::FromStr for NodeId {
    type Err = NotANode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, ordinal) = text.split_once("-n").ok_or(NotANode)?;
        Ok(group.parse::<GroupId>()?.node(ordinal.parse().map_err(|_| NotANode)?))
    }
}
