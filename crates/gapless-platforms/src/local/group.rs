//! Making the nodes of a group, all at the same time: the work is mostly waiting for other programs.

use super::blueprint::{Blueprint, Planned};
use super::check::WorkerCheck;
use super::machine::{MachineRemains, MachineRequest, Start, on_threads};
use super::names::Key;
use super::network::Reserved;
use super::node::{Exit, NodeRecord, Nodes};
use super::process::Process;
use gapless_core::node::NodeId;
use gapless_engine::error::{Context, Error};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Nodes of one declaration that are to be made.
pub struct Making<'a> {
    /// How they are set up.
    pub blueprint: Blueprint<'a>,
    /// The nodes' folders.
    pub nodes: &'a Nodes,
    /// Addresses that some proxy still knows under the name of an earlier node.
    pub listed: &'a BTreeSet<Ipv4Addr>,
}

/// What a node will be.
struct Decision<'a> {
    node: NodeId,
    record: NodeRecord,
    /// Its address, unless that was written down by an earlier try.
    reserved: Option<Reserved<'a>>,
}

/// What came of making nodes.
pub struct Made {
    /// Those that run, also when others could not be made.
    pub running: Vec<(Key, Process)>,
    /// The first error. A node that could not be made is made anew at the next try, as it never ran.
    pub result: Result<(), Error>,
}

impl Making<'_> {
    /// Makes and starts these nodes.
    pub fn make(&self, nodes: &[NodeId]) -> Made {
        let started = match self.prepare_all(nodes) {
            Ok(requests) => on_threads(&requests, |request| self.start(request)),
            Err(error) => vec![Err(error)],
        };
        let mut made = Made { running: Vec::new(), result: Ok(()) };
        for one in started {
            match one {
                Ok(running) => made.running.extend(running),
                Err(error) => made.result = made.result.and(Err(error)),
            }
        }
        made
    }

    /// Everything but the start.
    fn prepare_all(&self, nodes: &[NodeId]) -> Result<Vec<MachineRequest>, Error> {
        let wanted = nodes.iter().map(|node| self.decide(*node)).collect::<Result<Vec<_>, Error>>()?;
        let prepared = on_threads(&wanted, |decision| self.prepare(decision));
        let requests = prepared.into_iter().collect::<Result<Vec<_>, Error>>()?;
        self.blueprint.ground.link(&requests).context(|| "linking the nodes to the bridge".into())?;
        Ok(requests)
    }

    /// Gives the node its address. One whose making was broken off keeps its address; what there is of it is removed.
    fn decide(&self, node: NodeId) -> Result<Decision<'_>, Error> {
        let Blueprint { ground, declaration, image, .. } = self.blueprint;
        let key = Key::node(&declaration.service, node);
        if let Some(record) = self.nodes.record(&key)? {
            ground.remove_one(MachineRemains::at_once(key, Some(record.address)))?;
            let record = NodeRecord { image: image.image.to_string(), ..record };
            return Ok(Decision { node, record, reserved: None });
        }
        let worker = WorkerCheck::of(declaration)?;
        let reserved = ground.reserve_address(declaration.node.outbound, self.listed)?;
        let record = NodeRecord {
            image: image.image.to_string(),
            address: reserved.address(),
            port: declaration.node.port,
            check: declaration.health.path().to_string(),
            worker,
            stop_signal: declaration.node.stop_signal.name().to_string(),
        };
        Ok(Decision { node, record, reserved: Some(reserved) })
    }

    /// Writes the decision down before anything of the node exists, and makes everything that needs no other node.
    fn prepare(&self, Decision { node, record, reserved }: &Decision<'_>) -> Result<MachineRequest, Error> {
        if let Some(reserved) = reserved {
            let key = Key::node(&self.blueprint.declaration.service, *node);
            reserved.keep_if(self.nodes.write_record(&key, record), || self.nodes.record(&key))?;
        }
        let request = self.request(*node, record).context(|| format!("preparing {node}"))?;
        self.blueprint.ground.prepare(&request).context(|| format!("preparing {node}"))?;
        Ok(request)
    }

    fn request(&self, node: NodeId, record: &NodeRecord) -> Result<MachineRequest, Error> {
        let key = Key::node(&self.blueprint.declaration.service, node);
        self.blueprint.request(Planned {
            group: node.group,
            name: node.to_string(),
            folder: self.nodes.folder(&key),
            log: self.nodes.log(&key),
            key,
            address: record.address,
            command: &self.blueprint.declaration.node.command,
        })
    }

    fn start(&self, request: &MachineRequest) -> Result<Option<(Key, Process)>, Error> {
        self.blueprint.ground.connect(request)?;
        match self.blueprint.ground.start(request)? {
            Start::Running(process) => {
                self.nodes.write_running(&request.key, &process)?;
                Ok(Some((request.key.clone(), process)))
            }
            Start::Refused(reason) => {
                self.nodes.write_exit(&request.key, &Exit { code: None, output: reason })?;
                Ok(None)
            }
        }
    }
}
