//! Hostile repositories: what their settings, links and objects name is not run, and Git has only their owner's rights.

use gapless_engine::error::ErrorKind;
use gapless_images::commit::{Commit, CommitFile};
use gapless_images::git;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user that owns nothing else on this machine.
const OWNER: u32 = 424_242;

/// A repository in a folder that everybody may write, so that also a program without rights could leave its mark there.
struct Hostile(tempfile::TempDir);

impl Hostile {
    fn new() -> Self {
        let hostile = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(hostile.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir_all(hostile.folder().join("site")).unwrap();
        let program = hostile.program();
        fs::write(&program, format!("#!/bin/sh\necho ran >> {}\nexit 1\n", hostile.mark().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        hostile.git(&["init", "-q"], "");
        fs::write(hostile.folder().join("site/page"), "committed").unwrap();
        hostile
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("repository")
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("evil")
    }

    fn mark(&self) -> PathBuf {
        self.0.path().join("mark")
    }

    fn git(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write;
        let settings =
            ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "safe.directory=*"];
        let mut command = Command::new("git");
        command.arg("-C").arg(self.folder()).args(settings).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits what is there, with a signature that would have to be checked.
    fn signed_commit(&self) -> String {
        self.git(&["add", "-A"], "");
        let tree = self.git(&["write-tree"], "");
        let person = "Test <test@example.org> 1700000000 +0000";
        let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----";
        let text = format!("tree {tree}\nauthor {person}\ncommitter {person}\n{signature}\n\nchange\n");
        let id = self.git(&["hash-object", "-t", "commit", "-w", "--stdin"], &text);
        self.git(&["update-ref", "HEAD", &id], "");
        id
    }

    /// Lets the settings name the evil program wherever Git might start one.
    fn arm(&self) {
        let evil = self.program();
        let evil = evil.to_str().unwrap();
        for (name, value) in [
            ("log.showSignature", "true"),
            ("gpg.program", evil),
            ("gpg.openpgp.program", evil),
            ("core.fsmonitor", evil),
            ("core.pager", evil),
            ("core.sshCommand", evil),
            ("core.hooksPath", self.0.path().to_str().unwrap()),
            ("core.repositoryFormatVersion", "1"),
            ("extensions.partialClone", "origin"),
            ("remote.origin.url", "ssh://nobody.invalid/x"),
            ("remote.origin.promisor", "true"),
            ("protocol.ssh.allow", "always"),
            ("filter.evil.smudge", evil),
            ("filter.evil.clean", evil),
        ] {
            self.git(&["config", name, value], "");
        }
        fs::write(self.folder().join(".git/info/attributes"), "* filter=evil diff=evil\n").unwrap();
    }

    fn give_to(&self, owner: u32) {
        let given = Command::new("chown").arg("-R").arg(format!("{owner}:{owner}")).arg(self.folder()).status().unwrap();
        assert!(given.success());
    }

    fn nothing_ran(&self, what: &str) {
        assert!(!self.mark().exists(), "{what} started a program that the repository names");
    }
}

fn object(folder: &Path, id: &str) -> PathBuf {
    folder.join(".git/objects").join(&id[..2]).join(&id[2..])
}

#[test]
fn no_program_that_a_repository_names_is_started() {
    for owner in [0, OWNER] {
        let hostile = Hostile::new();
        let id = hostile.signed_commit();
        hostile.arm();
        hostile.give_to(owner);
        let commit = Commit::find(&hostile.folder(), &id).unwrap();
        assert_eq!(commit.last_change("site").unwrap(), 1_700_000_000);
        hostile.nothing_ran("asking for the last change");
        let files = commit.files(&["site"]).unwrap();
        assert_eq!(files["site/page"], CommitFile::File { executable: false, content: b"committed".to_vec() });
        hostile.nothing_ran("reading files");
        // The content is taken away: it would have to be fetched.
        let page = hostile.git(&["rev-parse", &format!("{id}:site/page")], "");
        fs::remove_file(object(&hostile.folder(), &page)).unwrap();
        assert_eq!(commit.files(&["site"]).unwrap_err().error_kind(), ErrorKind::Invalid);
        assert!(!git::run(&hostile.folder(), &["cat-file", "blob", &format!("{id}:site/page")]).unwrap().status.success());
        hostile.nothing_ran("reading a file that is missing");
    }
}

#[test]
fn git_has_the_rights_of_the_owner_and_can_gain_none() {
    let hostile = Hostile::new();
    let id = hostile.signed_commit();
    fs::write(hostile.program(), "#!/bin/sh\nid -u; id -g; id -G; cat /proc/self/status\n").unwrap();
    hostile.arm();
    hostile.give_to(OWNER);
    // The one command that may start a filter shows as whom.
    let said = git::run(&hostile.folder(), &["cat-file", "--filters", &format!("{id}:site/page")]).unwrap().text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["424242", "65534", "65534"], "{said}");
    for field in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Groups:\t"] {
        assert!(lines.iter().any(|line| line.trim_end() == field.trim_end()), "{field}: {said}");
    }
}

#[test]
fn a_repository_within_anothers_folder_is_refused_with_a_hint() {
    let hostile = Hostile::new();
    hostile.signed_commit();
    hostile.arm();
    chown(hostile.folder(), Some(OWNER), Some(OWNER)).unwrap();
    let error = Commit::find(&hostile.folder(), "HEAD").unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    assert!(error.hint_text().unwrap().contains("chown -R"), "{error}");
    hostile.give_to(OWNER);
    chown(hostile.folder(), Some(0), Some(0)).unwrap();
    assert!(Commit::find(&hostile.folder(), "HEAD").unwrap_err().hint_text().unwrap().contains("chown -R"));
    hostile.nothing_ran("refusing");
}

#[test]
fn what_stands_in_for_a_commit_is_not_read_for_it() {
    let hostile = Hostile::new();
    let first = hostile.signed_commit();
    fs::write(hostile.folder().join("site/page"), "exchanged").unwrap();
    let second = hostile.signed_commit();
    hostile.git(&["replace", &first, &second], "");
    let files = Commit::find(&hostile.folder(), &first).unwrap().files(&["site"]).unwrap();
    assert_eq!(files["site/page"], CommitFile::File { executable: false, content: b"committed".to_vec() });
}

#[test]
fn an_answer_that_is_too_long_is_refused() {
    let hostile = Hostile::new();
    let id = hostile.signed_commit();
    let arguments = ["cat-file", "blob", &format!("{id}:site/page")];
    assert_eq!(git::ask(&hostile.folder(), &arguments, Vec::new(), 9).unwrap().output, b"committed");
    let error = git::ask(&hostile.folder(), &arguments, Vec::new(), 8).unwrap_err();
    assert!(error.to_string().contains("more than 8 bytes"), "{error}");
}

#[test]
fn a_tree_that_leads_out_or_through_its_own_link_is_refused() {
    let hostile = Hostile::new();
    let id = hostile.git(&["hash-object", "-w", "--stdin"], "x");
    let link = hostile.git(&["hash-object", "-w", "--stdin"], "/etc");
    let inner = hostile.git(&["mktree"], &format!("100644 blob {id}\tcron\n"));
    let raw = |name: &str| format!("040000 tree {inner}\t{name}\n");
    for entries in [raw(".."), raw("."), format!("120000 blob {link}\tsub\n{}", raw("sub"))] {
        let site = hostile.git(&["mktree"], &entries);
        let tree = hostile.git(&["mktree"], &format!("040000 tree {site}\tsite\n"));
        let commit = hostile.git(&["commit-tree", "-m", "crafted", &tree], "");
        let error = Commit::find(&hostile.folder(), &commit).unwrap().files(&["site"]).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("git fsck")), "{entries}: {error}");
    }
}
