//! The provision layer: real Packer, fenced, changes a build node over SSH; what the node's disk then differs by from the base is the layer.

use crate::base::{Base, BaseCache, keep_record, read_record};
use crate::blob::BlobStore;
use crate::commit::{Commit, CommitFile, write_files};
use crate::input::Inputs;
use crate::layer;
use crate::lock;
use crate::packages;
use crate::packer::{self, Access};
use crate::progress::{Listener, Phase};
use crate::puppet;
use crate::spec::PackerSpec;
use crate::tools;
use crate::view::View;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::OWNER_SHIFT;
use gapless_engine::inside;
use gapless_engine::workbench::{BenchRequest, SandboxEnd, SandboxRequest, Workbench};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Counted up when the way a layer is provisioned changes.
const PROVISION_VERSION: u32 = 1;

/// The longest that a template may take: an installation of large packages over a slow line, with room.
pub const PACKER_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The longest that Packer may take to check a template, which starts nothing.
const VALIDATE_DEADLINE: Duration = Duration::from_secs(60);

/// How often a growing log is looked at for the person who watches; nothing waits for it.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// The most bytes that a log of a build may have: a build that says more is ended, so that the disk stays free. A large one says some MB.
pub const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// The most bytes of a log's end in which the reason of a failure is looked for.
const REASON_LIMIT: u64 = 256 * 1024;

/// The most bytes of a line that are told: what follows of it is in the log only.
const LINE_LIMIT: usize = 16 * 1024;

/// The most bytes of a log that are held at a time.
const READ_AT_ONCE: usize = 64 * 1024;

/// The output of the build node.
const NODE_LOG: &str = "node.log";

/// The most bytes of Puppet's reports of a pass: some thousand resources have a few MB.
const REPORT_LIMIT: u64 = 16 * 1024 * 1024;

/// What a build node has for itself and no image gets.
const NOT_PUBLISHED: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// Where provisions work, below the folder of their records.
const WORK_FOLDER: &str = "work";

/// The folder of the project's Puppet code, which a template may read beside its own folder.
const PUPPET_FOLDER: &str = "puppet";

/// A provision layer and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    layer: String,
    /// What the first run of Puppet changed, such as `Package[apache2]`.
    pub changes: Vec<String>,
    /// The version of Puppet, if it was applied.
    pub puppet_version: Option<String>,
    /// `name version` of each installed package.
    pub packages: Vec<String>,
}

impl Provisioned {
    /// The layer.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the record is damaged.
    pub fn layer(&self) -> Result<Digest, Error> {
        self.layer.parse().map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt))
    }
}

/// The layer of every provision that is remembered. A record that cannot be read counts as none, as when it is looked for: its layer is made again.
pub(crate) fn recorded(folder: &Path) -> Result<BTreeSet<Digest>, Error> {
    let reading = || format!("reading {}", folder.display());
    let mut layers = BTreeSet::new();
    for item in fs::read_dir(folder).context(reading)? {
        let name = item.context(reading)?.file_name();
        let key = name.to_str().and_then(|name| name.strip_prefix("provision-")?.strip_suffix(".json")).map(|key| format!("sha256:{key}"));
        let Some(key) = key.and_then(|key| key.parse().ok()) else { continue };
        layers.extend(read_record::<Provisioned>(folder, "provision", key)?.and_then(|provisioned| provisioned.layer().ok()));
    }
    Ok(layers)
}

/// Everything that a provision needs.
pub(crate) struct Provision<'a> {
    pub(crate) workbench: &'a dyn Workbench,
    pub(crate) cache: &'a BaseCache,
    pub(crate) blobs: &'a BlobStore,
    /// Where records and work are kept.
    pub(crate) folder: &'a Path,
    pub(crate) commit: &'a Commit,
    pub(crate) spec: &'a PackerSpec,
    pub(crate) base: &'a Base,
    pub(crate) base_tree: &'a Path,
    pub(crate) logs: &'a Path,
    pub(crate) listener: &'a Listener,
}

/// The folders of one provision.
struct Work {
    name: String,
    /// The copy of the commit's files.
    project: PathBuf,
    /// The template that is run, the script that removes the tools, the key.
    given: PathBuf,
    /// What Packer may write.
    output: PathBuf,
    /// What the node changes.
    upper: PathBuf,
}

impl Provision<'_> {
    /// The layer, and whether it was there already: then Packer is not started.
    pub(crate) async fn run(&self) -> Result<(Provisioned, bool), Error> {
        let template = self.spec.template.to_str().unwrap_or_default().to_owned();
        let (commit, folder) = (self.commit.clone(), readable_folder(&template).to_owned());
        let files = Arc::new(blocking(move || commit.files(&[&folder, PUPPET_FOLDER])).await?);
        let Some(CommitFile::File { content, .. }) = files.get(&template) else {
            return Err(Error::new(format!("the commit {} has no file `{template}`", self.commit.id()))
                .kind(ErrorKind::Invalid)
                .hint("set `template` of the image's `packer` block to a file that was committed"));
        };
        let content = String::from_utf8_lossy(content).into_owned();
        let (base, spec, hashed) = (self.base.layer()?, self.spec.clone(), files.clone());
        let key = blocking(move || Ok(key(base, &spec, &hashed))).await?;
        let lock_path = self.folder.join(format!("provision-{}.lock", key.hex()));
        let _lock = blocking(move || lock::take(&lock_path)).await?;
        if let Some(done) = read_record::<Provisioned>(self.folder, "provision", key)?
            && self.blobs.contains(done.layer()?)
        {
            return Ok((done, true));
        }
        require_packer(&std::env::var("PATH").unwrap_or_default())?;
        let folder = self.work_folder(key);
        let work = blocking(move || prepare(key, &folder, &files)).await?;
        let provisioned = self.provision(&work, &content).await.context(|| format!("provisioning with {template}"));
        let folder = self.work_folder(key);
        let removed = blocking(move || remove(&folder)).await;
        let provisioned = provisioned?;
        removed?;
        keep_record(self.folder, "provision", key, &provisioned)?;
        Ok((provisioned, false))
    }

    fn work_folder(&self, key: Digest) -> PathBuf {
        self.folder.join(WORK_FOLDER).join(key.short())
    }

    async fn provision(&self, work: &Work, template: &str) -> Result<Provisioned, Error> {
        let (cache, base, listener) = (self.cache.clone(), self.base.clone(), self.listener.clone());
        let tools_tree = blocking(move || {
            let started = std::time::Instant::now();
            listener.tell(crate::progress::Step::Started(Phase::Tools));
            let (digest, reused) = cache.tools(&base, &listener)?;
            listener.tell(crate::progress::Step::Finished { phase: Phase::Tools, reused, digest, took: started.elapsed() });
            cache.trees.tree(&cache.blobs, digest)
        })
        .await?;
        self.check_template(work, template).await?;
        let name = format!("build-{}", work.name);
        let opened = self.workbench.open(self.bench(&name, work, &tools_tree)?).await;
        let provisioned = match opened {
            Ok(bench) => self.run_packer(work, template, &name, &bench.address.to_string()).await,
            Err(error) => Err(error),
        };
        let closed = self.workbench.close(&name).await;
        let (changes, puppet_version) = provisioned?;
        closed?;
        self.pack(work, &tools_tree, changes, puppet_version).await
    }

    fn bench(&self, name: &str, work: &Work, tools_tree: &Path) -> Result<BenchRequest, Error> {
        let public = work.given.join("key.pub");
        let public = fs::read_to_string(&public).context(|| format!("reading {}", public.display()))?;
        let start = format!(
            "mkdir -p /run/sshd /run/gapless; echo '{}' > /run/gapless/authorized_keys; \
             printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
             exec /usr/sbin/sshd -D -e -p {} -o UsePAM=no -o UseDNS=no -o StrictModes=no -o PasswordAuthentication=no \
             -o AuthorizedKeysFile=/run/gapless/authorized_keys",
            public.trim(),
            packer::SSH_PORT
        );
        Ok(BenchRequest {
            name: name.into(),
            layers: vec![self.base_tree.into(), tools_tree.into()],
            upper: work.upper.clone(),
            command: vec!["/bin/sh".into(), "-c".into(), start],
            files: BTreeMap::new(),
            log: self.logs.join(NODE_LOG),
        })
    }

    /// Lets Packer itself say what is wrong with the project's template, before anything is started.
    async fn check_template(&self, work: &Work, template: &str) -> Result<(), Error> {
        let access = Access { host: "192.0.2.1".into(), private_key_file: "/gapless/key".into() };
        let derived = packer::derive(template, &self.spec.variables, &access, "/output", "/gapless/remove.sh");
        let mut command = vec!["packer".to_owned(), "validate".to_owned()];
        match &derived {
            Ok(derived) => {
                write_derived(work, derived)?;
                command.extend(variable_arguments(&derived.variables));
                command.push("/gapless/template.json".into());
            }
            // Packer shows the line and column of what is not JSON better than a parser that is not its own.
            Err(_) => command.extend(["-syntax-only".into(), self.spec.template.display().to_string()]),
        }
        let log = self.logs.join("validate.log");
        let request = self.sandbox(work, "validate", command, None, log.clone(), VALIDATE_DEADLINE);
        let end = followed(self.workbench.run(request), vec![Tail::silent(&log)]).await?;
        if end == SandboxEnd::Exited(0) {
            return derived.map(drop);
        }
        let said = packer::without_colours(&end_of(&log).await?);
        Err(Error::new(format!("`packer validate` refuses the template:\n{}", said.trim())).kind(ErrorKind::Invalid))
    }

    async fn run_packer(&self, work: &Work, template: &str, bench: &str, host: &str) -> Result<(Vec<String>, Option<String>), Error> {
        let access = Access { host: host.into(), private_key_file: "/gapless/key".into() };
        let derived = packer::derive(template, &self.spec.variables, &access, "/output", "/gapless/remove.sh")?;
        write_derived(work, &derived)?;
        let mut command: Vec<String> = ["packer", "build", "-machine-readable", "-color=false"].map(str::to_owned).into();
        command.push(format!("-only={}", derived.builder));
        command.extend(variable_arguments(&derived.variables));
        command.push("/gapless/template.json".into());
        let log = self.logs.join("packer.log");
        let request = self.sandbox(work, "packer", command, Some(bench.into()), log.clone(), PACKER_DEADLINE);
        let tails = vec![Tail::told_to(&log, self.listener), Tail::silent(&self.logs.join(NODE_LOG))];
        let end = followed(self.workbench.run(request), tails).await?;
        judge(end, &log).await?;
        if !derived.applies_puppet {
            return Ok((Vec::new(), None));
        }
        let first = self.reports(work, "first").await?;
        puppet::must_be_unchanged(&self.reports(work, "second").await?)?;
        let changes = first.iter().flat_map(|report| &report.changes).map(|change| change.resource.clone()).collect();
        Ok((changes, first.first().map(|report| report.puppet_version.clone())))
    }

    /// Puppet's reports of a pass, which Packer fetched from the node. They are kept beside the logs.
    async fn reports(&self, work: &Work, pass: &str) -> Result<Vec<puppet::Report>, Error> {
        let (output, name) = (work.output.clone(), format!("{pass}.yaml"));
        let kept = self.logs.join(format!("puppet-{pass}.yaml"));
        blocking(move || {
            let text = fetched(&output, &name)?;
            fs::write(&kept, &text).context(|| format!("writing {}", kept.display()))?;
            puppet::read(&text)
        })
        .await
        .context(|| format!("reading Puppet's reports of the {pass} pass"))
    }

    fn sandbox(
        &self,
        work: &Work,
        what: &str,
        command: Vec<String>,
        bench: Option<String>,
        log: PathBuf,
        deadline: Duration,
    ) -> SandboxRequest {
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/output"),
            ("TMPDIR", "/output"),
            ("PACKER_CACHE_DIR", "/output/packer_cache"),
            ("PACKER_CONFIG_DIR", "/output"),
            // Packer would ask its maker's server for a newer version of itself.
            ("CHECKPOINT_DISABLE", "1"),
            ("PACKER_NO_COLOR", "1"),
        ];
        SandboxRequest {
            name: format!("{what}-{}", work.name),
            command,
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            readable: [("/project".into(), work.project.clone()), ("/gapless".into(), work.given.clone())].into(),
            writable: [("/output".into(), work.output.clone())].into(),
            working_directory: "/project".into(),
            bench,
            log,
            deadline,
        }
    }

    async fn pack(
        &self,
        work: &Work,
        tools_tree: &Path,
        changes: Vec<String>,
        puppet_version: Option<String>,
    ) -> Result<Provisioned, Error> {
        let (blobs, base, tools_tree, upper) = (self.blobs.clone(), self.base_tree.to_owned(), tools_tree.to_owned(), work.upper.clone());
        blocking(move || {
            let published = [&base, &tools_tree, &upper].map(PathBuf::as_path);
            let now = View::of(&published, OWNER_SHIFT)?.without_inside(&NOT_PUBLISHED);
            let before = View::of(&[&base], OWNER_SHIFT)?.without_inside(&NOT_PUBLISHED);
            let difference = now.difference(&before)?;
            let layer = blobs.put(|writer| layer::pack(&difference, writer)).context(|| "keeping the provision layer".into())?;
            // The package manager's list was written by the node: it always is in `upper`.
            let packages = packages::installed(&upper).or_else(|_| packages::installed(&base))?;
            Ok(Provisioned { layer: layer.to_string(), changes, puppet_version, packages })
        })
        .await
    }
}

fn key(base: Digest, spec: &PackerSpec, files: &BTreeMap<String, CommitFile>) -> Digest {
    let mut inputs = Inputs::new("provision", PROVISION_VERSION);
    inputs.add("base", base.hex().as_bytes());
    inputs.add("template", spec.template.as_os_str().as_encoded_bytes());
    for (name, value) in &spec.variables {
        inputs.add("variable", name.as_bytes());
        inputs.add("value", value.as_bytes());
    }
    for (path, file) in files {
        inputs.add("path", path.as_bytes());
        match file {
            CommitFile::File { executable, content } => inputs.add(if *executable { "executable" } else { "file" }, content),
            CommitFile::Link { target } => inputs.add("link", target.as_bytes()),
        }
    }
    inputs.key()
}

/// Makes the folders of a provision, with all that Packer is given.
fn prepare(key: Digest, folder: &Path, files: &BTreeMap<String, CommitFile>) -> Result<Work, Error> {
    remove(folder)?;
    let inside = |name: &str| folder.join(name);
    let work =
        Work { name: key.short(), project: inside("project"), given: inside("given"), output: inside("output"), upper: inside("upper") };
    for made in [&work.project, &work.given, &work.output, &work.upper] {
        fs::create_dir_all(made).context(|| format!("making {}", made.display()))?;
    }
    write_files(files, &work.project)?;
    fs::write(work.given.join("remove.sh"), tools::REMOVE).context(|| "writing the script that removes the tools".into())?;
    make_key(&work.given.join("key"))?;
    Ok(work)
}

/// Says before anything is started that Packer is missing; a sandbox could only say that it found no such program.
fn require_packer(path: &str) -> Result<(), Error> {
    if path.split(':').any(|folder| Path::new(folder).join("packer").is_file()) {
        return Ok(());
    }
    Err(Error::new("Packer is not installed")
        .hint("Debian 12 and Ubuntu: apt-get install packer; Debian 13 has no such package: put Packer's own release into /usr/local/bin"))
}

/// The folder that a template may read: the topmost one on its path; for a template at the top, only itself.
fn readable_folder(template: &str) -> &str {
    template.split_once('/').map_or(template, |(folder, _)| folder)
}

fn variable_arguments(variables: &BTreeMap<String, String>) -> impl Iterator<Item = String> + '_ {
    variables.iter().flat_map(|(name, value)| ["-var".to_owned(), format!("{name}={value}")])
}

fn write_derived(work: &Work, derived: &packer::Derived) -> Result<(), Error> {
    let path = work.given.join("template.json");
    fs::write(&path, &derived.template).context(|| format!("writing {}", path.display()))
}

/// A file that Packer left in its folder. Packer runs the project's scripts there: only what the sandboxed user made itself is read, never through a link.
fn fetched(output: &Path, name: &str) -> Result<String, Error> {
    let owner = fs::symlink_metadata(output).context(|| format!("looking at {}", output.display()))?.uid();
    Ok(String::from_utf8_lossy(&inside::read_own(output, Path::new(name), owner, REPORT_LIMIT)?).into_owned())
}

/// A key for this one node. The folders above are root's alone; the fenced Packer sees it by a mount and needs to be able to read it.
fn make_key(path: &Path) -> Result<(), Error> {
    let mut command = Command::new("ssh-keygen");
    let output = command.args(["-q", "-t", "ed25519", "-N", "", "-C", "gapless-build", "-f"]).arg(path).output();
    let output =
        output.map_err(|error| Error::new(format!("starting ssh-keygen: {error}")).hint("install it: apt-get install openssh-client"))?;
    if !output.status.success() {
        return Err(Error::new(format!("ssh-keygen said: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).context(|| format!("setting the mode of {}", path.display()))
}

async fn judge(end: SandboxEnd, log: &Path) -> Result<(), Error> {
    let how = match end {
        SandboxEnd::Exited(0) => return Ok(()),
        SandboxEnd::Exited(code) => format!("exit status {code}"),
        SandboxEnd::Killed => "killed by a signal".into(),
        SandboxEnd::DeadlinePassed => format!("not done after {} minutes", PACKER_DEADLINE.as_secs() / 60),
    };
    let output = end_of(log).await?;
    let errors = packer::errors(&output);
    let said = if errors.is_empty() { last_lines(&output) } else { errors.join("\n") };
    Err(Error::new(format!("Packer failed ({how}):\n{said}"))
        .kind(ErrorKind::Invalid)
        .hint(format!("the whole output is in {}", log.display())))
}

/// Waits for a program, following logs meanwhile. A log that becomes too long ends the program: that happens when its future is dropped.
async fn followed(run: impl Future<Output = Result<SandboxEnd, Error>>, mut tails: Vec<Tail>) -> Result<SandboxEnd, Error> {
    let mut run = std::pin::pin!(run);
    let mut interval = tokio::time::interval(LOG_INTERVAL);
    loop {
        tokio::select! {
            end = &mut run => {
                look(tails).await?;
                return end;
            }
            _ = interval.tick() => tails = look(tails).await?,
        }
    }
}

async fn look(mut tails: Vec<Tail>) -> Result<Vec<Tail>, Error> {
    blocking(move || {
        tails.iter_mut().try_for_each(Tail::look)?;
        Ok(tails)
    })
    .await
}

/// The last [`REASON_LIMIT`] bytes of a log: Packer repeats its errors at its end. Nothing when there is no log.
async fn end_of(log: &Path) -> Result<String, Error> {
    let log = log.to_owned();
    blocking(move || {
        let mut end = Vec::new();
        if let Ok(mut file) = File::open(&log) {
            let length = file.metadata().context(|| format!("looking at {}", log.display()))?.len();
            let read = file.seek(SeekFrom::Start(length.saturating_sub(REASON_LIMIT)));
            read.and_then(|_| file.take(REASON_LIMIT).read_to_end(&mut end)).context(|| format!("reading {}", log.display()))?;
        }
        Ok(String::from_utf8_lossy(&end).into_owned())
    })
    .await
}

/// The end of an output, enough to hold its reason.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Removes what provisions left that did not come to their end.
pub(crate) fn remove_work(folder: &Path) -> Result<(), Error> {
    remove(&folder.join(WORK_FOLDER))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("removing {}", folder.display())),
        _ => Ok(()),
    }
}

/// Does what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::new(format!("a part of the build ended early: {error}")))?
}

/// Follows a log that other people's programs write: its length is limited, and so is what is held of it.
struct Tail {
    log: PathBuf,
    listener: Option<Listener>,
    read: u64,
    /// A line that has not ended yet; at most [`LINE_LIMIT`] bytes.
    rest: Vec<u8>,
    /// The rest of a line that is too long is passed over.
    skipping: bool,
}

impl Tail {
    fn told_to(log: &Path, listener: &Listener) -> Self {
        Self { listener: Some(listener.clone()), ..Self::silent(log) }
    }

    /// Only its length is looked at.
    fn silent(log: &Path) -> Self {
        Self { log: log.into(), listener: None, read: 0, rest: Vec::new(), skipping: false }
    }

    /// Tells the lines that came since the last time. Blocks the thread.
    fn look(&mut self) -> Result<(), Error> {
        let reading = || format!("reading {}", self.log.display());
        let mut file = match File::open(&self.log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.context(reading)?,
        };
        let length = file.metadata().context(reading)?.len();
        if length > LOG_LIMIT {
            return Err(Error::new(format!("the build is ended: its output {} has more than {LOG_LIMIT} bytes", self.log.display()))
                .kind(ErrorKind::Invalid)
                .hint("let the template's scripts say less, or write into a file of their own"));
        }
        let Some(listener) = self.listener.clone() else { return Ok(()) };
        file.seek(SeekFrom::Start(self.read)).context(reading)?;
        let mut chunk = vec![0; READ_AT_ONCE];
        while self.read < length {
            let count = file.read(&mut chunk).context(|| format!("reading {}", self.log.display()))?;
            if count == 0 {
                break;
            }
            self.read += count as u64;
            self.take(&chunk[..count], &listener);
        }
        Ok(())
    }

    fn take(&mut self, grown: &[u8], listener: &Listener) {
        for part in grown.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_LIMIT.saturating_sub(self.rest.len());
            if !self.skipping {
                self.rest.extend(&part[..part.len().min(room)]);
            }
            let ended = part.ends_with(b"\n");
            if (ended || part.len() > room) && !self.skipping {
                self.tell(listener);
            }
            self.skipping = !ended && (self.skipping || part.len() > room);
        }
    }

    fn tell(&mut self, listener: &Listener) {
        let line = std::mem::take(&mut self.rest);
        let line = String::from_utf8_lossy(&line);
        let shown = packer::parse(&line).map_or_else(|| Some(line.trim_end().to_owned()), |message| message.shown());
        if let Some(text) = shown.filter(|text| !text.is_empty()) {
            listener.line(Phase::Provision, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_packer_is_named_with_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("/nowhere:{}", folder.path().display());
        assert!(require_packer(&path).unwrap_err().hint_text().unwrap().contains("apt-get install packer"));
        fs::write(folder.path().join("packer"), "").unwrap();
        require_packer(&path).unwrap();
    }

    #[test]
    fn a_template_reads_its_own_folder() {
        assert_eq!(readable_folder("packer/web/hello.json"), "packer");
        assert_eq!(readable_folder("hello.json"), "hello.json");
    }

    #[test]
    fn a_report_is_read_only_from_the_sandboxed_users_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        fs::create_dir(&output).unwrap();
        std::os::unix::fs::chown(&output, Some(4242), Some(4242)).unwrap();
        fs::write(folder.path().join("key"), "signing key").unwrap();
        let give = |name: &str| std::os::unix::fs::lchown(output.join(name), Some(4242), Some(4242)).unwrap();
        std::os::unix::fs::symlink(folder.path().join("key"), output.join("link.yaml")).unwrap();
        give("link.yaml");
        fs::hard_link(folder.path().join("key"), output.join("hard.yaml")).unwrap();
        assert!(Command::new("mkfifo").arg(output.join("pipe.yaml")).status().unwrap().success());
        give("pipe.yaml");
        let long = File::create(output.join("long.yaml")).unwrap();
        long.set_len(1 << 40).unwrap();
        give("long.yaml");
        for name in ["link.yaml", "hard.yaml", "pipe.yaml", "long.yaml"] {
            let error = fetched(&output, name).unwrap_err();
            assert_eq!(error.error_kind(), ErrorKind::Invalid, "{name}: {error}");
            assert!(!error.to_string().contains("signing"), "{error}");
        }
        fs::write(output.join("own.yaml"), "report").unwrap();
        give("own.yaml");
        assert_eq!(fetched(&output, "own.yaml").unwrap(), "report");
    }

    #[test]
    fn a_growing_log_is_told_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = told.clone();
        let listener = Listener::new(move |step| kept.lock().unwrap().push(step));
        let mut tail = Tail::told_to(&log, &listener);
        tail.look().unwrap();
        let grown = ["1,,ui,say,==> one\n1,,ui,mess", "age,    two%!(PACKER_COMMA) still two\n1,,error-count,0\nnot Packer's\n"];
        let mut text = String::new();
        for part in grown {
            text.push_str(part);
            fs::write(&log, &text).unwrap();
            tail.look().unwrap();
        }
        let lines: Vec<String> = told.lock().unwrap().iter().map(|step| format!("{step:?}")).collect();
        assert_eq!(
            lines,
            [r#"Line(Provision, "==> one")"#, r#"Line(Provision, "    two, still two")"#, r#"Line(Provision, "not Packer's")"#]
        );
    }
    #[test]
    fn a_line_without_an_end_is_cut_and_the_next_one_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = told.clone();
        let listener = Listener::new(move |step| {
            if let crate::progress::Step::Line(_, text) = step {
                kept.lock().unwrap().push(text.len());
            }
        });
        let mut tail = Tail::told_to(&log, &listener);
        let mut text = vec![b'x'; 5 * READ_AT_ONCE];
        fs::write(&log, &text).unwrap();
        tail.look().unwrap();
        assert!(tail.rest.len() <= LINE_LIMIT);
        assert_eq!(*told.lock().unwrap(), [LINE_LIMIT]);
        text.extend(b"yyy\nnext\n");
        text.extend(vec![b'z'; LINE_LIMIT]);
        text.extend(b"\nlast\n");
        fs::write(&log, &text).unwrap();
        tail.look().unwrap();
        assert_eq!(*told.lock().unwrap(), [LINE_LIMIT, 4, LINE_LIMIT, 4]);
    }

    #[tokio::test]
    async fn a_log_that_is_too_long_ends_the_program_and_only_its_end_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // A log of holes: it takes no room, and would take all memory if it were read.
        File::create(&log).unwrap().set_len(LOG_LIMIT + 1).unwrap();
        let error = followed(std::future::pending(), vec![Tail::silent(&log)]).await.unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("more than"), "{error}");
        File::create(&log).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(end_of(&log).await.unwrap().len() as u64, REASON_LIMIT);
        assert_eq!(end_of(&folder.path().join("none")).await.unwrap(), "");
    }
}
