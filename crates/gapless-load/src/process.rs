//! The witness as a process of its own, and the handle by which another process runs it.
//!
//! The witness reads a plan (a JSON file, or one line on standard input), prints a [`Progress`] as one
//! line of JSON every 250 ms, and stops at SIGTERM, at SIGINT, or when a pipe on its standard input
//! closes: so it never outlives the process that started it. Then it writes its [`Recording`] as JSON.

use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::LoadError;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Recording;
use crate::run::{Control, run};

/// The plan's path that stands for one line on standard input.
const STANDARD_INPUT: &str = "-";
/// File descriptors the witness asks for: one for each request in flight, and some.
const WANTED_DESCRIPTORS: u64 = 65_536;
/// Longest plan in bytes: 1 MiB, thousands of classes.
const MAX_PLAN_BYTES: u64 = 1 << 20;
/// What a stopped witness may need beyond its last request's deadline to write its recording.
const WRITING_TIME: Duration = Duration::from_secs(30);
/// Most bytes of a witness's complaints that are kept.
const MAX_COMPLAINT_BYTES: u64 = 16 << 10;

/// The witness's process: runs the plan in the file `plan` (`-`: one line on standard input) and writes the
/// recording into the file `output`. Blocks until the run is over; call it outside any async runtime.
pub fn main(plan: &Path, output: &Path) -> Result<(), LoadError> {
    let plan = read_plan(plan)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        LoadError::new("cannot start the witness's runtime", "look at the limits of processes and files").caused_by(error)
    })?;
    let recording = runtime.block_on(record(plan))?;
    runtime.shutdown_background();
    write_recording(output, &recording)
}

async fn record(plan: Plan) -> Result<Recording, LoadError> {
    let control = Control::new();
    stop_with_signals(&control)?;
    stop_with_standard_input(&control);
    print_progress(&control);
    run(plan, &control).await
}

fn read_plan(path: &Path) -> Result<Plan, LoadError> {
    let unreadable = |error: std::io::Error| {
        LoadError::new(format!("cannot read the plan {}", path.display()), "name a file with a plan as JSON").caused_by(error)
    };
    let mut text = Vec::new();
    if path.as_os_str() == STANDARD_INPUT {
        std::io::stdin().lock().take(MAX_PLAN_BYTES).read_until(b'\n', &mut text).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_PLAN_BYTES).read_to_end(&mut text).map_err(unreadable)?;
    }
    serde_json::from_slice(&text).map_err(|error| {
        LoadError::new(format!("the plan {} is not understood", path.display()), "compare it with the plan's fields").caused_by(error)
    })
}

/// Asks for more descriptors than the customary 1024. A refusal is no reason to stop: requests that lack one are
/// counted as the witness's own limit.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(WANTED_DESCRIPTORS).min(WANTED_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

fn stop_with_signals(control: &Control) -> Result<(), LoadError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let control = control.clone();
        let mut signals = signal(kind)
            .map_err(|error| LoadError::new("cannot listen for signals", "look at the limits of processes and files").caused_by(error))?;
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                control.stop();
            }
        });
    }
    Ok(())
}

/// Stops the run when standard input is a pipe or socket and its other side goes away. Files, terminals and
/// /dev/null are at their end from the start and mean nothing.
fn stop_with_standard_input(control: &Control) {
    if !standard_input_is_a_pipe() {
        return;
    }
    let control = control.clone();
    // A thread that is not awaited: a blocking read of standard input would hold up the runtime's end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        control.stop();
    });
}

fn standard_input_is_a_pipe() -> bool {
    let duplicate = std::io::stdin().as_fd().try_clone_to_owned();
    let kind = duplicate.and_then(|descriptor| std::fs::File::from(descriptor).metadata());
    kind.is_ok_and(|kind| kind.file_type().is_fifo() || kind.file_type().is_socket())
}

fn print_progress(control: &Control) {
    let mut progress = control.progress();
    let lines = line_printer();
    tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            let snapshot = progress.borrow_and_update().clone();
            if let Ok(line) = serde_json::to_string(&snapshot) {
                // A reader that does not keep up misses snapshots; the requests must not wait for it.
                let _ = lines.try_send(line);
            }
        }
    });
}

fn line_printer() -> SyncSender<String> {
    let (sender, receiver) = sync_channel::<String>(4);
    std::thread::spawn(move || {
        for line in receiver {
            let mut output = std::io::stdout().lock();
            if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
                return;
            }
        }
    });
    sender
}

/// Writes beside the output and renames, so that a recording is there whole or not at all.
fn write_recording(output: &Path, recording: &Recording) -> Result<(), LoadError> {
    let unwritable = |error: std::io::Error| {
        LoadError::new(format!("cannot write the recording {}", output.display()), "look at the folder's permissions and its room")
            .caused_by(error)
    };
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let file = std::fs::File::create(&partial).map_err(unwritable)?;
    let mut writer = std::io::BufWriter::new(file);
    serde_json::to_writer(&mut writer, recording).map_err(|error| unwritable(error.into()))?;
    writer.flush().map_err(unwritable)?;
    std::fs::rename(&partial, output).map_err(unwritable)
}

/// A witness that runs as a child process. Dropping it kills it; [`Witness::stop`] brings its recording.
pub struct Witness {
    child: Child,
    input: Option<ChildStdin>,
    progress: watch::Receiver<Progress>,
    complaints: JoinHandle<String>,
    output: PathBuf,
    patience: Duration,
}

impl Witness {
    /// Starts `program - OUTPUT`, which has to call [`main`] with these two paths, and gives it `plan`; for gapless
    /// itself, `program` is `Command::new(current_exe)` with the argument `load`.
    /// It runs in a process group of its own: Ctrl-C in a terminal reaches only the process that asked for it.
    pub async fn spawn(mut program: Command, plan: &Plan, output: &Path) -> Result<Self, LoadError> {
        plan.endpoint()?;
        use std::os::unix::process::CommandExt;
        program.arg(STANDARD_INPUT).arg(output).process_group(0);
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = program.get_program().to_string_lossy().into_owned();
        let failed = |what: &str, error: std::io::Error| {
            LoadError::new(format!("cannot {what} the witness {name}"), "look whether the program is there and runs").caused_by(error)
        };
        let mut child = tokio::process::Command::from(program).kill_on_drop(true).spawn().map_err(|error| failed("start", error))?;
        let mut input = child.stdin.take().ok_or_else(|| failed("write to", std::io::ErrorKind::BrokenPipe.into()))?;
        let mut line = serde_json::to_vec(plan).map_err(|error| failed("write to", error.into()))?;
        line.push(b'\n');
        input.write_all(&line).await.map_err(|error| failed("write to", error))?;
        Ok(Self {
            progress: follow(child.stdout.take()),
            complaints: collect(child.stderr.take()),
            input: Some(input),
            child,
            output: output.to_owned(),
            patience: Duration::from_millis(plan.deadline_ms) + WRITING_TIME,
        })
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The snapshots of its run; only the newest is kept. The channel closes when the witness ends.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Lets it start no further request, waits until those in flight are over, and reads its recording.
    pub async fn stop(mut self) -> Result<Recording, LoadError> {
        drop(self.input.take());
        let broken = |what: String| LoadError::new(what, "look at what the witness wrote to its standard error");
        let status = match timeout(self.patience, self.child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(broken("cannot wait for the witness".to_owned()).caused_by(error)),
            Err(_) => return Err(broken(format!("the witness did not end within {:?}", self.patience))),
        };
        if !status.success() {
            let complaint = self.complaints.await.unwrap_or_default();
            return Err(broken(format!("the witness ended with {status}: {}", complaint.trim())));
        }
        read_recording(&self.output).await
    }
}

async fn read_recording(path: &Path) -> Result<Recording, LoadError> {
    let unreadable = || {
        LoadError::new(format!("cannot read the witness's recording {}", path.display()), "look at the folder's permissions and its room")
    };
    let text = tokio::fs::read(path).await.map_err(|error| unreadable().caused_by(error))?;
    serde_json::from_slice(&text).map_err(|error| unreadable().caused_by(error))
}

fn follow(output: Option<ChildStdout>) -> watch::Receiver<Progress> {
    let (sender, receiver) = watch::channel(Progress::default());
    if let Some(output) = output {
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(progress) = serde_json::from_str(&line) {
                    sender.send_replace(progress);
                }
            }
        });
    }
    receiver
}

fn collect(complaints: Option<tokio::process::ChildStderr>) -> JoinHandle<String> {
    tokio::spawn(async move {
        let Some(mut complaints) = complaints else { return String::new() };
        let mut kept = Vec::new();
        let _ = (&mut complaints).take(MAX_COMPLAINT_BYTES).read_to_end(&mut kept).await;
        // What is beyond the limit is read and dropped, so that the witness never waits for a reader.
        let _ = tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await;
        String::from_utf8_lossy(&kept).into_owned()
    })
}
