//! The keeper of a task: a small process that runs the container in the foreground and writes down how its command ended. It outlives the server, so that a server that was
//! killed in the middle of a migration learns how that ended. It is a shell, because a host always has one, and because there is nothing more to do.

use crate::local::helpers::enter_group;
use crate::local::machine::{Ground, MachineRequest, open_log};
use crate::local::process::Process;
use gapless_engine::error::{Context, Error};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Its first words are for the runtime; the last two are where it writes the status, whole or not at all: the second where the first has no room.
const SCRIPT: &str = r#""$1" --root "$2" --log "$3" --log-format json run --no-new-keyring --pid-file "$4" --bundle "$5" "$6"
status=$?
for place in "$7" "$8"; do
    printf '%s\n' "$status" > "$place.new" && mv "$place.new" "$place" && break
done"#;

/// Where the runtime and the keeper write what they know.
pub struct Words {
    /// The number of the machine's first process, once the runtime has started the command.
    pub pid: PathBuf,
    /// Why the runtime could not.
    pub errors: PathBuf,
    /// How the command ended.
    pub exit: [PathBuf; 2],
}

/// Starts a machine that was prepared and linked, and its keeper.
///
/// # Errors
/// When the keeper cannot be started: then nothing of it has run.
pub fn start(ground: &Ground, request: &MachineRequest, words: &Words) -> Result<Process, Error> {
    let log = open_log(&request.log, request.owner_shift + request.identity.user)?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "gapless-task"]).arg(&ground.runtime).arg(ground.runtime_root()).arg(&words.errors);
    command.arg(&words.pid).arg(&request.folder).arg(ground.marks.machine(&request.key)).args(&words.exit);
    command.stdin(Stdio::null()).stdout(log.try_clone().context(|| "opening the log twice".into())?).stderr(log);
    if let Some(unified) = &ground.cgroups.unified {
        let group = unified.join(ground.marks.keeper_cgroup(&request.key).trim_start_matches('/'));
        fs::create_dir_all(&group).context(|| format!("making the control group {}", group.display()))?;
        enter_group(&mut command, &group)?;
    }
    // SAFETY: between fork and exec only one system call happens: no lock, no allocation. A session of its own, so that what ends the server's terminal does not end it.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(std::io::Error::from)) };
    let child = command.spawn().context(|| "starting the task's keeper".into())?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    Process::of(pid).ok_or_else(|| Error::new("the task's keeper was gone before it could be waited for"))
}
