//! The limits of the core that no policy sets, each with its unit and reason.

use core::time::Duration;

/// How long the proxies may take to cut what still runs when its time is over, and to say so.
pub const CUT_GRACE: Duration = Duration::from_secs(2);

/// The wait before an effect is tried again for the first time; it doubles with each try. Short, because most failures are a process that is just being replaced.
pub const RETRY_FIRST: Duration = Duration::from_millis(250);

/// The longest wait before an effect is tried again: a repaired world is found within this time.
pub const RETRY_LONGEST: Duration = Duration::from_secs(15);

/// How often the nodes of a rollout's new group may fail to be made before the rollout is rejected. The old release serves meanwhile, so there is no need for more.
pub const ENSURE_TRIES: u32 = 4;

/// The wait between the first and the second replacement of lost nodes; it doubles with each further one.
pub const REPLACE_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between replacements: a node that always crashes costs one start in this time.
pub const REPLACE_LONGEST: Duration = Duration::from_secs(300);

/// No loss for this long: the next one is replaced at once again.
pub const REPLACE_CALM: Duration = Duration::from_secs(600);

/// How often a release command or hook may fail to be run at all (it never began, or nobody knows of its end) before the rollout is rejected.
pub const TASK_TRIES: u32 = 3;

/// Replacements in a row that did not help after which a crash loop is told and no more are made: with the waits between them about a quarter of an hour, longer than most restarts
/// of what a service depends on.
pub const CRASH_LOOP_TRIES: u32 = 10;

/// How often a timed step of a canary is looked at: several times, so that a bad release is given up early, and few, because each look costs certainty.
pub const ANALYSIS_PARTS: u32 = 4;

/// The shortest time between two looks at a canary: less holds too few requests.
pub const ANALYSIS_FASTEST: Duration = Duration::from_secs(1);

/// The longest time between two looks at a canary.
pub const ANALYSIS_SLOWEST: Duration = Duration::from_secs(60);

/// Looks in a row after a step's time that may decide nothing before the rollout is rejected: twice the step's own looks, and a person may promote it meanwhile.
pub const ANALYSIS_HOLDS: u32 = 8;

/// How long a canary's step that is over waits for a new node that is just then not well, before that is looked at again.
pub const CANARY_AGAIN: Duration = Duration::from_secs(1);

/// How long the old group is kept on when the bake window ends while no new node can serve, before that is looked at again.
pub const BAKE_AGAIN: Duration = Duration::from_secs(15);

/// A live node that runs and fails this many times as many checks in a row as fail the gate is replaced: long enough for a restart of what it depends on.
pub const HUNG_FACTOR: u32 = 10;

/// How long a node may still be seen after its destruction was reported before it is destroyed again.
pub const DESTROY_AGAIN: Duration = Duration::from_secs(2);

/// The drain deadline of a node whose release is not known: the default of the design.
pub const DRAIN_OF_UNKNOWN: Duration = Duration::from_secs(30);

/// How long new nodes that passed their gate wait for services that move together with theirs, beyond their own progress deadline: those may run a release command first (10 minutes by
/// default), or wait for their turn. One that cannot come says so at once, so this ends only what nobody comes to any more.
pub const PARTNERS_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many nodes a reason names at most, so that a text for people stays readable.
pub const NODES_NAMED: usize = 4;

/// `first`, doubled `times` times, at most `longest`.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    2_u32.checked_pow(times).and_then(|factor| first.checked_mul(factor)).map_or(longest, |wait| wait.min(longest))
}
