//! Layers: what is packed comes back as it was, the same every time, and nothing that was changed is used. Needs root: owners, whiteouts.

use gapless_engine::error::ErrorKind;
use gapless_engine::images::{Images, OWNER_SHIFT};
use gapless_images::blob::BlobStore;
use gapless_images::layer::{self, Attributes, Item};
use gapless_images::manifest::Manifest;
use gapless_images::tree::Depth;
use gapless_images::unpack::{ImageStore, Trees};
use gapless_images::view::{Kind, View};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

fn write(root: &Path, path: &str, content: &str, mode: u32, owner: u32) {
    let place = root.join(path);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, content).unwrap();
    chown(&place, Some(owner), Some(owner + 1)).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
}

fn whiteout(place: &Path) {
    let status = Command::new("mknod").arg(place).args(["c", "0", "0"]).status().unwrap();
    assert!(status.success(), "mknod: these tests need root");
}

/// A small system.
fn lower(root: &Path) {
    write(root, "etc/passwd", "root:x:0:0::/root:/bin/sh\nhello:x:999:998::/:/bin/sh\n", 0o644, 0);
    write(root, "etc/shadow", "secret", 0o640, 42);
    write(root, "usr/bin/tool", "#!/bin/sh\n", 0o4755, 0);
    write(
        root,
        "usr/share/a-long-way/down/with/a/path/that/is/longer/than/a/hundred/bytes/as/the/old/tar/format/knew/it/file.txt",
        "deep",
        0o600,
        7,
    );
    write(root, "usr/share/doc/read", "me", 0o644, 0);
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/tool-too")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/nowhere/at/all", root.join("etc/dangling")).unwrap();
    fs::create_dir(root.join("tmp")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// What an overlay's upper directory looks like after a change, an addition, a removal of a file and of a folder, and a replaced folder.
fn upper(root: &Path) {
    write(root, "etc/passwd", "root:x:0:0::/root:/bin/bash\n", 0o644, 0);
    write(root, "srv/new", "new", 0o644, 5);
    whiteout(&root.join("etc/shadow"));
    fs::create_dir_all(root.join("usr/share")).unwrap();
    whiteout(&root.join("usr/share/doc"));
    write(root, "usr/share/a-long-way/other", "in its place", 0o644, 0);
    opaque(&root.join("usr/share/a-long-way"));
}

fn opaque(folder: &Path) {
    rustix::fs::lsetxattr(folder, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
}

fn pack(blobs: &BlobStore, trees: &[&Path], below: &[&Path]) -> gapless_core::digest::Digest {
    let difference = View::of(trees, 0).unwrap().difference(&View::of(below, 0).unwrap()).unwrap();
    blobs.put(|writer| layer::pack(&difference, writer)).unwrap()
}

/// A view without where its content is: paths with kinds, contents and attributes.
fn told(view: &View) -> BTreeMap<String, String> {
    view.entries()
        .iter()
        .map(|(path, entry)| {
            let kind = match &entry.kind {
                Kind::Folder => "folder".to_owned(),
                Kind::Link { target } => format!("link {target}"),
                Kind::File { source, .. } => format!("file {:?}", fs::read_to_string(source).unwrap()),
            };
            (path.clone(), format!("{kind} {:o} {} {}", entry.mode, entry.user, entry.group))
        })
        .collect()
}

struct Place {
    folder: tempfile::TempDir,
    blobs: BlobStore,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path().join("blobs")).unwrap();
        for name in ["lower", "upper"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        lower(&folder.path().join("lower"));
        upper(&folder.path().join("upper"));
        Self { folder, blobs }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_system_comes_back_as_it_was_with_shifted_owners() {
    let place = Place::new();
    let layer = pack(&place.blobs, &[&place.path("lower")], &[]);
    let tree = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap().tree(&place.blobs, layer).unwrap();
    assert_eq!(told(&View::of(&[&tree], OWNER_SHIFT).unwrap()), told(&View::of(&[&place.path("lower")], 0).unwrap()));
    let shadow = fs::metadata(tree.join("etc/shadow")).unwrap();
    assert_eq!((shadow.uid(), shadow.gid(), shadow.mode() & 0o7777), (OWNER_SHIFT + 42, OWNER_SHIFT + 43, 0o640));
    let (one, two) = (fs::metadata(tree.join("usr/bin/tool")).unwrap(), fs::metadata(tree.join("usr/bin/tool-too")).unwrap());
    assert_eq!(one.ino(), two.ino(), "a hard link became a copy");
    assert_eq!(one.mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(place.path("trees")).unwrap().mode() & 0o777, 0o700, "others can enter the trees");
    assert_eq!(one.mtime(), fs::metadata(place.path("lower/usr/bin/tool")).unwrap().mtime());
}

#[test]
fn a_stack_of_unpacked_layers_shows_what_the_overlay_showed() {
    let place = Place::new();
    let (lower, upper) = (place.path("lower"), place.path("upper"));
    let layers = [pack(&place.blobs, &[&lower], &[]), pack(&place.blobs, &[&lower, &upper], &[&lower])];
    let trees = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap();
    let unpacked = layers.map(|layer| trees.tree(&place.blobs, layer).unwrap());
    let stack: Vec<&Path> = unpacked.iter().map(|tree| tree.as_path()).collect();
    let shown = told(&View::of(&stack, OWNER_SHIFT).unwrap());
    assert_eq!(shown, told(&View::of(&[&lower, &upper], 0).unwrap()));
    assert!(!shown.contains_key("etc/shadow") && !shown.contains_key("usr/share/doc") && shown.contains_key("usr/share/a-long-way/other"));

    // And the kernel sees the same: whiteouts and all.
    let merged = place.path("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!("lowerdir={}:{}", stack[1].display(), stack[0].display());
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status().unwrap();
    assert!(mounted.success());
    let seen = View::of(&[&merged], OWNER_SHIFT).map(|view| told(&view));
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    assert_eq!(seen.unwrap(), shown);
}

#[test]
fn a_layer_holds_only_what_differs() {
    let place = Place::new();
    let lower = place.path("lower");
    // The same file written again, as package managers do, is no difference; nor is what came and went.
    write(&place.path("upper"), "usr/bin/tool", "#!/bin/sh\n", 0o4755, 0);
    whiteout(&place.path("upper/never-was-there"));
    let view = View::of(&[&lower, &place.path("upper")], 0).unwrap();
    let difference = view.difference(&View::of(&[&lower], 0).unwrap()).unwrap();
    assert!(!difference.present.contains_key("usr/bin/tool"));
    assert!(!difference.removed.contains(&"never-was-there".to_owned()));
    assert_eq!(difference.removed, ["etc/shadow", "usr/share/a-long-way/down", "usr/share/doc"]);
}

#[test]
fn packing_is_deterministic() {
    let (one, two) = (Place::new(), Place::new());
    for place in [&one, &two] {
        // Times are content. Everything else (inodes, the order of a folder, the time of reading) is not.
        let status =
            Command::new("find").arg(place.path("lower")).args(["-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"]).status().unwrap();
        assert!(status.success());
    }
    assert_eq!(pack(&one.blobs, &[&one.path("lower")], &[]), pack(&two.blobs, &[&two.path("lower")], &[]));
}

#[test]
fn a_foreign_overlay_mark_is_refused() {
    let place = Place::new();
    rustix::fs::lsetxattr(place.path("upper/srv"), "trusted.overlay.redirect", b"/x", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(View::of(&[&place.path("upper")], 0).unwrap_err().to_string().contains("trusted.overlay.redirect"));
}

type Change = fn(&Path);

#[test]
fn every_way_to_change_a_tree_is_found_before_it_is_used() {
    let place = Place::new();
    let layer = pack(&place.blobs, &[&place.path("lower"), &place.path("upper")], &[&place.path("lower")]);
    let base = pack(&place.blobs, &[&place.path("lower")], &[]);
    let changes: [(&str, Change); 9] = [
        ("content, same length and time", |tree| {
            let place = tree.join("etc/passwd");
            let time = fs::metadata(&place).unwrap().modified().unwrap();
            let mut content = fs::read(&place).unwrap();
            content[0] = b'R';
            fs::write(&place, content).unwrap();
            fs::File::options().write(true).open(&place).unwrap().set_modified(time).unwrap();
        }),
        ("mode", |tree| fs::set_permissions(tree.join("etc/passwd"), fs::Permissions::from_mode(0o666)).unwrap()),
        ("owner", |tree| chown(tree.join("etc/passwd"), Some(0), None).unwrap()),
        ("gone", |tree| fs::remove_file(tree.join("etc/passwd")).unwrap()),
        ("added", |tree| fs::write(tree.join("usr/bin/added"), "").unwrap()),
        ("added at the top", |tree| fs::write(tree.join("added"), "").unwrap()),
        ("a link", |tree| {
            fs::remove_file(tree.join("bin")).unwrap();
            symlink("/tmp", tree.join("bin")).unwrap();
        }),
        ("a folder instead of a file", |tree| {
            fs::remove_file(tree.join("etc/passwd")).unwrap();
            fs::create_dir(tree.join("etc/passwd")).unwrap();
        }),
        ("replaced by a copy", |tree| {
            fs::write(tree.join("etc/other"), "x").unwrap();
            fs::rename(tree.join("etc/other"), tree.join("etc/passwd")).unwrap();
        }),
    ];
    each_change_is_found(&place, base, &changes);
    let trees = Trees::open(place.path("whiteouts"), OWNER_SHIFT).unwrap();
    let tree = trees.tree(&place.blobs, layer).unwrap();
    fs::remove_file(tree.join("etc/shadow")).unwrap();
    assert_eq!(trees.tree(&place.blobs, layer).unwrap_err().error_kind(), ErrorKind::Corrupt, "a removed whiteout");
}

fn each_change_is_found(place: &Place, layer: gapless_core::digest::Digest, changes: &[(&str, Change)]) {
    for (number, (name, change)) in changes.iter().enumerate() {
        let folder = place.path(&format!("trees-{number}"));
        let trees = Trees::open(&folder, OWNER_SHIFT).unwrap();
        let tree = trees.tree(&place.blobs, layer).unwrap();
        trees.tree(&place.blobs, layer).expect("an untouched tree is used");
        change(&tree);
        let error = trees.tree(&place.blobs, layer).expect_err(name);
        assert_eq!(error.error_kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.hint_text().is_some());
        // Also by a process that did not unpack it.
        assert!(Trees::open(&folder, OWNER_SHIFT).unwrap().tree(&place.blobs, layer).is_err(), "{name}");
    }
}

#[test]
fn marks_and_the_trees_own_folder_are_checked_too() {
    let place = Place::new();
    let base = pack(&place.blobs, &[&place.path("lower")], &[]);
    let changes: [(&str, Change); 5] = [
        ("a right by an extended attribute", |tree| {
            // cap_setuid+ep, as `setcap` writes it.
            let value = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            rustix::fs::lsetxattr(tree.join("usr/bin/tool"), "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
        }),
        ("a folder that hides the lower ones", |tree| opaque(&tree.join("etc"))),
        ("a tree that hides the lower ones", |tree| opaque(tree)),
        ("the tree's own mode", |tree| fs::set_permissions(tree, fs::Permissions::from_mode(0o777)).unwrap()),
        ("the tree's own owner", |tree| chown(tree, Some(0), None).unwrap()),
    ];
    each_change_is_found(&place, base, &changes);
    let trees = Trees::open(place.path("marks"), OWNER_SHIFT).unwrap();
    let layer = hostile(&place.blobs, |tar| tar.append(&header(tar::EntryType::Regular, "etc/.wh..wh..opq"), &[][..]).unwrap());
    let tree = trees.tree(&place.blobs, layer).unwrap();
    trees.check(layer, Depth::Contents).unwrap();
    rustix::fs::lremovexattr(tree.join("etc"), "trusted.overlay.opaque").unwrap();
    assert_eq!(trees.tree(&place.blobs, layer).unwrap_err().error_kind(), ErrorKind::Corrupt, "a removed mark");
}

#[test]
fn a_tree_that_was_copied_by_a_backup_is_used_and_read_wholly() {
    let place = Place::new();
    let layer = pack(&place.blobs, &[&place.path("lower")], &[]);
    Trees::open(place.path("trees"), OWNER_SHIFT).unwrap().tree(&place.blobs, layer).unwrap();
    assert!(Command::new("cp").arg("-a").arg(place.path("trees")).arg(place.path("restored")).status().unwrap().success());
    let trees = Trees::open(place.path("restored"), OWNER_SHIFT).unwrap();
    trees.tree(&place.blobs, layer).unwrap();
    trees.check(layer, Depth::Contents).unwrap();
}

#[tokio::test]
async fn a_corrupted_blob_is_refused_and_leaves_no_tree() {
    let place = Place::new();
    let store = ImageStore::open(&place.path("store")).unwrap();
    let layer = pack(&store.blobs, &[&place.path("lower")], &[]);
    let image = Manifest::write(&store.blobs, &[layer]).unwrap();
    let path = store.blobs.path(layer);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, &content).unwrap();
    let error = store.unpacked(image).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&layer.hex()), "{error}");
    assert!(store.trees.layers().unwrap().is_empty());

    content[middle] ^= 1;
    fs::write(&path, &content).unwrap();
    let unpacked = store.unpacked(image).await.unwrap();
    assert_eq!(unpacked.layers.len(), 1);
    assert_eq!(store.unpacked(image).await.unwrap(), unpacked);
    assert!(store.examine().unwrap().is_empty());
    fs::write(unpacked.layers[0].join("etc/shadow"), "x").unwrap();
    assert_eq!(store.examine().unwrap().len(), 1);
}

#[test]
fn what_an_unpacking_left_behind_does_not_hinder_the_next() {
    let place = Place::new();
    let layer = pack(&place.blobs, &[&place.path("lower")], &[]);
    let trees = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap();
    fs::create_dir_all(place.path("trees").join(format!("{}.incoming/root/etc", layer.hex()))).unwrap();
    trees.tree(&place.blobs, layer).unwrap();
    trees.check(layer, Depth::Contents).unwrap();
}

/// A layer as somebody who means harm would write it.
fn hostile(blobs: &BlobStore, build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> gapless_core::digest::Digest {
    let mut tar = tar::Builder::new(Vec::new());
    build(&mut tar);
    blobs.put_bytes(&tar.into_inner().unwrap()).unwrap()
}

fn header(kind: tar::EntryType, path: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    header
}

fn link_out(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &Path) {
    let mut link = header(tar::EntryType::Symlink, path);
    link.set_link_name(target).unwrap();
    link.set_cksum();
    tar.append(&link, &[][..]).unwrap();
}

#[test]
fn a_folder_may_be_listed_twice_and_keeps_its_mark() {
    let place = Place::new();
    let entry = |tar: &mut tar::Builder<Vec<u8>>, kind, path: &str| tar.append(&header(kind, path), &[][..]).unwrap();
    let layer = hostile(&place.blobs, |tar| {
        entry(tar, tar::EntryType::Regular, "a/.wh..wh..opq");
        entry(tar, tar::EntryType::Directory, "a/");
        entry(tar, tar::EntryType::Regular, "a/file");
        entry(tar, tar::EntryType::Regular, ".wh..wh..opq");
    });
    let trees = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap();
    trees.tree(&place.blobs, layer).unwrap();
    trees.check(layer, Depth::Contents).unwrap();
}

#[test]
fn a_file_of_holes_is_not_packed() {
    let place = Place::new();
    let root = place.path("holes");
    fs::create_dir(&root).unwrap();
    fs::File::create(root.join("data")).unwrap().set_len(layer::FILE_LIMIT + 1).unwrap();
    let difference = View::of(&[&root], 0).unwrap().difference(&View::default()).unwrap();
    let mut written = Vec::new();
    let error = layer::pack(&difference, &mut written).unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("data") && written.is_empty(), "{error}");
}

#[test]
fn a_layer_cannot_reach_out_of_its_tree() {
    let place = Place::new();
    let entry = |tar: &mut tar::Builder<Vec<u8>>, kind, path: &str| tar.append(&header(kind, path), &[][..]).unwrap();
    let layers = [
        hostile(&place.blobs, |tar| entry(tar, tar::EntryType::Regular, "../out")),
        hostile(&place.blobs, |tar| entry(tar, tar::EntryType::Regular, "a/../../out")),
        hostile(&place.blobs, |tar| entry(tar, tar::EntryType::Block, "disk")),
        hostile(&place.blobs, |tar| entry(tar, tar::EntryType::Char, "disk")),
        hostile(&place.blobs, |tar| {
            link_out(tar, "way", &place.path(""));
            entry(tar, tar::EntryType::Regular, "way/out");
        }),
        hostile(&place.blobs, |tar| {
            let mut link = header(tar::EntryType::Link, "passwd");
            link.set_link_name("/etc/passwd").unwrap();
            link.set_cksum();
            tar.append(&link, &[][..]).unwrap();
        }),
        hostile(&place.blobs, |tar| {
            let mut owned = header(tar::EntryType::Regular, "owned");
            owned.set_uid(70_000);
            owned.set_cksum();
            tar.append(&owned, &[][..]).unwrap();
        }),
        // A link first, then a folder of the same name, then through it.
        hostile(&place.blobs, |tar| {
            link_out(tar, "way", &place.path(""));
            entry(tar, tar::EntryType::Directory, "way/");
            entry(tar, tar::EntryType::Regular, "way/out");
        }),
        hostile(&place.blobs, |tar| {
            link_out(tar, "way", &place.path("out"));
            entry(tar, tar::EntryType::Regular, "way");
        }),
        hostile(&place.blobs, |tar| {
            entry(tar, tar::EntryType::Regular, "way");
            entry(tar, tar::EntryType::Directory, "way/");
        }),
        hostile(&place.blobs, |tar| {
            entry(tar, tar::EntryType::Regular, ".wh.way");
            entry(tar, tar::EntryType::Directory, "way/");
            entry(tar, tar::EntryType::Regular, "way/out");
        }),
        hostile(&place.blobs, |tar| entry(tar, tar::EntryType::Regular, "a/.wh...")),
        hostile(&place.blobs, |tar| {
            link_out(tar, "way", &place.path(""));
            entry(tar, tar::EntryType::Regular, "way/.wh..wh..opq");
        }),
    ];
    let trees = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap();
    for (number, layer) in layers.into_iter().enumerate() {
        let error = trees.tree(&place.blobs, layer).expect_err(&format!("layer {number} was unpacked"));
        assert_eq!(error.error_kind(), ErrorKind::Corrupt, "layer {number}: {error}");
    }
    assert!(!place.path("out").exists() && !place.path("trees/out").exists());
}

#[test]
fn items_at_hand_are_packed_in_order() {
    let place = Place::new();
    let attributes = Attributes { mode: 0o640, user: 1, group: 2, modified: 5 };
    let items: BTreeMap<String, (Item, Attributes)> = [
        ("srv", (Item::Folder, Attributes { mode: 0o755, ..attributes })),
        ("srv/file", (Item::File(b"content".into()), attributes)),
        ("srv/link", (Item::Link("file".into()), attributes)),
    ]
    .map(|(path, item)| (path.to_owned(), item))
    .into();
    let pack = || place.blobs.put(|writer| layer::pack_items(&items, writer)).unwrap();
    assert_eq!(pack(), pack());
    let tree = Trees::open(place.path("trees"), OWNER_SHIFT).unwrap().tree(&place.blobs, pack()).unwrap();
    let file = fs::metadata(tree.join("srv/link")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777, file.mtime()), (OWNER_SHIFT + 1, OWNER_SHIFT + 2, 0o640, 5));
}
