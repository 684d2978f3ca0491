//! What a backup keeps of tasks: which have begun, and what came of them, so that none is run again where the backup is restored.

use super::record::{TaskEnd, Tasks};
use crate::local::names::Key;
use crate::local::{file, platform_folder};
use gapless_engine::error::{Context, Error};
use std::collections::BTreeSet;
use std::path::Path;

/// Where what came of tasks is kept, in an installation's state.
pub const RESULTS_FOLDER: &str = "platform/results";

/// The names of all tasks of an installation that have begun, or have ended. One that could not be started is no longer among them.
///
/// # Errors
/// When they cannot be listed.
pub fn begun_tasks(state: &Path) -> Result<BTreeSet<String>, Error> {
    let names = Tasks::of_platform(&platform_folder(state)).begun()?;
    Ok(names.iter().map(Key::to_string).collect())
}

/// Writes into a folder what came of these tasks, each under its name. One that has begun and not ended is written down as one of which nobody knows how it ended: on the machine
/// where the backup is restored, nobody will.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_results(state: &Path, tasks: &BTreeSet<String>, folder: &Path) -> Result<(), Error> {
    let kept = Tasks::of_platform(&platform_folder(state));
    for key in tasks.iter().filter_map(|name| Key::parse(name)) {
        let copied = kept.record(&key).and_then(|record| {
            // Read after the record: who ends a task writes down what came of it before the record goes.
            let result = kept.result(&key)?.or_else(|| Some(kept.conclude(&key, &record?, TaskEnd::Unknown)));
            result.map_or(Ok(()), |result| file::write(&folder.join(key.as_str()), &result))
        });
        copied.context(|| format!("copying what is known of the task {key}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::task::record::{TaskRecord, TaskResult};
    use gapless_core::effect::Task;
    use gapless_engine::error::ErrorKind;
    use std::fs;

    #[test]
    fn what_has_begun_is_not_run_again_from_a_backup() {
        let scratch = tempfile::tempdir().unwrap();
        let (state, copy) = (scratch.path().join("state"), scratch.path().join("copy"));
        let tasks = Tasks::open(&platform_folder(&state)).unwrap();
        let key = |instance| Key::task(&"hello/web".parse().unwrap(), format!("r1-i{instance}").parse().unwrap(), Task::ReleaseCommand);
        let record = TaskRecord {
            address: [10, 0, 0, 2].into(),
            command: vec!["/bin/migrate".into()],
            deadline_ms: 1_000,
            stop_signal: "SIGTERM".into(),
        };
        let ended = tasks.conclude(&key(1), &record, TaskEnd::Exited(0));
        tasks.write_result(&key(1), &ended).unwrap();
        for instance in 2..=3 {
            tasks.write_record(&key(instance), &record).unwrap();
        }
        tasks.write_begun(&key(2), || Ok(())).unwrap();
        fs::write(scratch.path().join("state").join(RESULTS_FOLDER).join(format!("{}.1-1.new", key(4))), "{").unwrap();

        let begun = begun_tasks(&state).unwrap();
        assert_eq!(begun, [key(1), key(2)].map(|key| key.to_string()).into());
        fs::create_dir(&copy).unwrap();
        copy_results(&state, &begun, &copy).unwrap();
        let copied = |instance| file::read::<TaskResult>(&copy.join(key(instance).as_str())).unwrap();
        assert_eq!((copied(1), copied(3)), (Some(ended), None));
        let error = copied(2).unwrap().outcome("r1-i2-task-release-command").unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("nobody knows how `/bin/migrate` ended"), "{error}");
    }

    #[test]
    fn where_no_task_ever_was_there_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(begun_tasks(scratch.path()).unwrap(), BTreeSet::new());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "looking left something");
    }
}
