//! Room for whole groups, asked before the first old node leaves for them.

use super::Shared;
use super::capacity::{Room, Wanted};
use super::names::Key;
use gapless_engine::error::Error;
use gapless_engine::platform::Newcomers;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What the nodes hold that leave first. Their records and output on the disk are next to nothing, and part of them stays.
struct Leaving {
    /// In bytes; `None` if the host does not tell.
    memory: Option<u64>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Shared {
    /// Whether all of these nodes have room on this host, once what does not stay has left.
    pub(super) fn check_room_for(&self, newcomers: &[Newcomers], listed: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        let leaving = self.leaving(newcomers)?;
        let machines = newcomers.iter().map(|new| new.nodes).fold(0, u32::saturating_add);
        let memory = newcomers.iter().map(|new| new.declaration.node.memory_bytes.saturating_mul(new.nodes.into()));
        let memory_bytes = memory.fold(0, u64::saturating_add);
        for outbound in [false, true] {
            let of_half = newcomers.iter().filter(|new| new.declaration.node.outbound == outbound);
            let addresses = of_half.map(|new| new.nodes).fold(0, u32::saturating_add);
            if addresses > 0 {
                let free = self.ground.free_addresses_without(outbound, listed, &leaving.addresses);
                let room = Room::of(&self.ground.folder, free)?.without(leaving.memory);
                room.check(&Wanted { machines, memory_bytes, addresses })?;
            }
        }
        Ok(())
    }

    fn leaving(&self, newcomers: &[Newcomers]) -> Result<Leaving, Error> {
        let mut leaving = Leaving { memory: Some(0), addresses: BTreeSet::new() };
        for new in newcomers {
            let service = &new.declaration.service;
            for node in self.nodes.of(service)?.into_iter().filter(|node| !new.staying.contains(node)) {
                let key = Key::node(service, node);
                let held = self.ground.cgroups.memory_held(&self.ground.marks.cgroup(&key));
                leaving.memory = leaving.memory.zip(held).map(|(sum, held)| sum.saturating_add(held));
                leaving.addresses.extend(self.nodes.address(&key));
            }
        }
        Ok(leaving)
    }
}
