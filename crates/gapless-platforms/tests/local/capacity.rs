//! Room for nodes is asked for before anything of them is made.

use crate::service::{declaration, group, serving};
use crate::support::Installation;
use gapless_core::node::NodeId;
use gapless_core::observation::Condition;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::{Newcomers, Platform};
use gapless_platforms::local::cgroup::Cgroups;
use gapless_platforms::local::names::{Key, Marks};
use gapless_platforms::local::{LocalPlatform, platform_folder};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Asks for a group that must be refused, and checks that nothing was made of it.
async fn refused(installation: &Installation, platform: &LocalPlatform, declaration: ServiceDeclaration, size: u32) -> Error {
    let error = platform.ensure_group(Arc::new(declaration), group(1), size).await.unwrap_err();
    assert!(error.hint_text().is_some(), "{error} comes without a hint");
    let folder = platform_folder(&installation.state());
    for made in ["nodes", "runc"] {
        assert_eq!(std::fs::read_dir(folder.join(made)).unwrap().count(), 0, "something was made in {made}: {error}");
    }
    assert_eq!(installation.leftovers().find().unwrap(), vec![], "something was made: {error}");
    assert!(platform.observe(&serving().service).await.unwrap().nodes.is_empty());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_ask_for_more_memory_than_there_is_are_refused_before_anything_is_made() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut greedy = serving();
    greedy.node.memory_bytes = 1 << 50;
    let error = refused(&installation, &platform, greedy, 2).await;
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("no room for 2 nodes more: their memory limits come to 2147483648 MiB"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_nodes_than_addresses_are_refused_before_anything_is_made() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut many = declaration(&["exit", "0", "ended"]);
    many.node.memory_bytes = 1 << 20;
    many.node.outbound = false;
    let error = refused(&installation, &platform, many, 1024).await;
    assert_eq!(error.error_kind(), ErrorKind::NoRoom, "{error}");
    assert!(error.to_string().contains("no room for 1024 nodes more: the installation's network has 1023 free addresses"), "{error}");
}

fn newcomers(declaration: &ServiceDeclaration, nodes: u32, staying: &[NodeId]) -> Vec<Newcomers> {
    vec![Newcomers { declaration: declaration.clone(), nodes, staying: staying.iter().copied().collect() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_a_whole_group_is_told_before_anything_leaves_for_it() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut many = serving();
    many.node.outbound = false;
    let old = group(1).node(0);
    platform.ensure_group(Arc::new(many.clone()), group(1), 1).await.unwrap();
    many.node.memory_bytes = 1 << 20;
    platform.has_room(&newcomers(&many, 2, &[old])).await.unwrap();
    for (staying, free) in [(vec![old], 1022), (vec![], 1023)] {
        let error = platform.has_room(&newcomers(&many, 1024, &staying)).await.unwrap_err();
        assert!(error.to_string().contains(&format!("has {free} free addresses")), "{error}");
    }
    let outward = ServiceDeclaration { service: "hello/api".parse().unwrap(), ..serving() };
    let both = [newcomers(&many, 2, &[old]), newcomers(&outward, 2, &[])].concat();
    platform.has_room(&both).await.unwrap();
    let mut half = [newcomers(&many, 2, &[old]), newcomers(&outward, 2, &[])].concat();
    half.iter_mut().for_each(|new| new.declaration.node.memory_bytes = 1 << 50);
    let error = platform.has_room(&half).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("no room for 4 nodes more: their memory limits come to 4294967296 MiB"), "{error}");
    let seen = platform.observe(&many.service).await.unwrap();
    assert!(seen.nodes.len() == 1 && seen.nodes[&old].condition == Condition::Running, "{seen:?}");
    platform.destroy_nodes(&many.service, &BTreeSet::from([old])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_holds_is_known_as_long_as_it_is_there() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let node = group(1).node(0);
    let cgroup = Marks::new(&installation.id).unwrap().cgroup(&Key::node(&serving().service, node));
    let held = Cgroups::detect().memory_held(&cgroup).expect("this host has the memory controller");
    assert!(held > 0 && held <= serving().node.memory_bytes, "{held}");
    platform.destroy_nodes(&serving().service, &BTreeSet::from([node])).await.unwrap();
    assert_eq!(Cgroups::detect().memory_held(&cgroup), Some(0));
}

/// A small disk for an installation's state.
struct Disk<'a> {
    installation: &'a Installation,
    place: PathBuf,
}

impl<'a> Disk<'a> {
    fn new(installation: &'a Installation, options: &str) -> Self {
        let disk = Self { installation, place: installation.state() };
        disk.mount(&["-t", "tmpfs", "-o", options, "tmpfs"]);
        disk
    }

    fn mount(&self, arguments: &[&str]) {
        assert!(Command::new("mount").args(arguments).arg(&self.place).status().unwrap().success(), "mount {arguments:?}");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // As long as the state tells what the host was like before.
        let removed = self.installation.leftovers().remove_everything();
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.place).status().unwrap();
        assert!(std::thread::panicking() || removed.is_ok() && unmounted.success(), "{removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_the_disk_cannot_take_are_refused_and_made_once_it_can() {
    let installation = Installation::new();
    let disk = Disk::new(&installation, "mode=700,size=60m,nr_inodes=20k");
    let platform = installation.open().await;
    let error = refused(&installation, &platform, serving(), 2).await;
    assert_eq!(error.error_kind(), ErrorKind::NoRoom, "{error}");
    assert!(error.to_string().contains("free, and 66 MiB must be"), "{error}");
    disk.mount(&["-o", "remount,size=200m,nr_inodes=300"]);
    let error = refused(&installation, &platform, serving(), 2).await;
    assert_eq!(error.error_kind(), ErrorKind::NoRoom, "{error}");
    assert!(error.to_string().contains("more files, and it must take 384"), "{error}");
    disk.mount(&["-o", "remount,nr_inodes=20k"]);
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    let seen = platform.observe(&serving().service).await.unwrap();
    assert!(seen.nodes.len() == 2 && seen.nodes.values().all(|node| node.condition == Condition::Running), "{seen:?}");
    platform.destroy_nodes(&serving().service, &seen.nodes.into_keys().collect()).await.unwrap();
}
