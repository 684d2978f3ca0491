//! Situations that the simulated runs have to reach: a run that never got there has proven nothing about it.
//!
//! A place in the code is marked with `sometimes!("what is so here")`. Each thread collects what it reached; a test takes that and compares it with the list of what is required.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// This situation is here. [`sometimes!`](crate::sometimes) calls it.
pub fn reached(name: &'static str) {
    REACHED.with_borrow_mut(|reached| *reached.entry(name).or_default() += 1);
}

/// Everything that this thread reached since the last call, and how often.
#[must_use]
pub fn take() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}

/// A situation was reached, if this is so.
pub fn reached_if(name: &'static str, condition: bool) {
    if condition {
        reached(name);
    }
}

/// Marks a situation that some run has to reach, always or on a condition.
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        $crate::sim::situation::reached($name)
    };
    ($name:literal, $condition:expr) => {
        $crate::sim::situation::reached_if($name, $condition)
    };
}
