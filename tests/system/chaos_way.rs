//! The ways from one release to the next that chaos is brought into.

use crate::project::Project;
use gapless_wire::rollout::Outcome;

/// What is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A declaration of a good version.
    Deploy,
    /// A declaration of one that never passes its checks.
    Reject,
    /// A rollback to the release before, whose nodes are made again.
    RollBack,
    /// A rollback inside the bake window.
    TakeBack,
}

impl Act {
    /// How it has to end, whatever dies on the way but nodes.
    pub fn outcome(self) -> Outcome {
        if self == Act::Reject { Outcome::Rejected } else { Outcome::Live }
    }
}

/// A way from one release to the next.
pub struct Way {
    pub name: &'static str,
    /// What stands in the service's block beside what the bundled project has.
    service: &'static str,
    /// What stands in the block `rollout`.
    rollout: &'static str,
    pub act: Act,
    /// Nothing answers for a while, as is declared.
    pub outage: bool,
    /// The places of the short form.
    pub short: &'static [&'static str],
    /// A place where new nodes are made and have no traffic yet.
    pub begun: &'static str,
    /// A place where both groups are there and new nodes have traffic; none: nothing but the server dies on this way.
    pub middle: &'static str,
}

const BLUE_GREEN: Way = Way {
    name: "blue-green",
    service: "",
    rollout: "floor = 3\n drain = \"10s\"\n progress = \"60s\"\n bake = \"0s\"",
    act: Act::Deploy,
    outage: false,
    short: &["Route:2:after"],
    begun: "EnsureGroup:1:after",
    middle: "Route:2:after",
};

/// Every strategy, the ways back, and a release that is rejected.
pub const WAYS: &[Way] = &[
    BLUE_GREEN,
    Way { name: "blue-green with a bake window", rollout: "floor = 3\n drain = \"10s\"\n bake = \"1s\"", short: &[], ..BLUE_GREEN },
    Way {
        name: "a rollback inside the bake window",
        rollout: "floor = 3\n drain = \"10s\"\n bake = \"5m\"",
        act: Act::TakeBack,
        short: &["Route:1:after"],
        middle: "",
        ..BLUE_GREEN
    },
    Way {
        name: "rolling",
        rollout: "strategy = \"rolling\"\n surge = 1\n floor = 3\n drain = \"10s\"",
        short: &["Route:3:before"],
        middle: "Route:3:after",
        ..BLUE_GREEN
    },
    Way {
        name: "rolling without surge",
        rollout: "strategy = \"rolling\"\n surge = 0\n floor = 2\n drain = \"10s\"",
        begun: "Route:1:after",
        middle: "EnsureGroup:2:after",
        short: &[],
        ..BLUE_GREEN
    },
    Way {
        name: "canary",
        rollout: "strategy = \"canary\"\n step {\n percent = 20\n pause = \"2s\"\n }\n step {\n percent = 50\n pause = \"1s\"\n }\n floor = 3\n drain = \"10s\"\n bake = \"0s\"",
        short: &["Route:2:after"],
        middle: "Route:3:before",
        ..BLUE_GREEN
    },
    Way {
        name: "canary with analysis",
        // So wide margins that nothing but the rollout itself is on trial, and long enough for a quantile to be told at all.
        rollout: "strategy = \"canary\"\n step {\n percent = 50\n pause = \"8s\"\n }\n analysis {\n minimum_requests = 20\n error_margin = \"50%\"\n latency_margin = \"1000%\"\n }\n floor = 3\n drain = \"10s\"\n bake = \"0s\"",
        short: &["Analyse:1:before"],
        middle: "",
        ..BLUE_GREEN
    },
    Way {
        name: "recreate",
        rollout: "strategy = \"recreate\"\n drain = \"10s\"",
        outage: true,
        short: &["EnsureGroup:1:before"],
        middle: "Drain:1:after",
        ..BLUE_GREEN
    },
    Way {
        name: "a release command and hooks",
        service: "  release_command = [\"/bin/true\"]\n  hooks {\n    before_shift = [\"/bin/true\"]\n    after_shift = [\"/bin/true\"]\n  }",
        short: &["RunTask:1:after"],
        middle: "",
        ..BLUE_GREEN
    },
    Way { name: "a rollback", act: Act::RollBack, middle: "", short: &["Drain:1:before"], ..BLUE_GREEN },
    Way { name: "a rejected release", act: Act::Reject, middle: "", short: &["DestroyNodes:1:before"], ..BLUE_GREEN },
];

impl Way {
    /// Whether the new nodes' answers are compared with those of the old ones.
    pub fn compares(&self) -> bool {
        self.rollout.contains("analysis")
    }

    /// How many nodes serve: where only one may use the state, one.
    pub fn nodes(&self) -> usize {
        if self.outage { 1 } else { 3 }
    }

    /// Writes it into the project's file.
    pub fn write(&self, project: &Project) {
        let path = project.path.join("gapless.hcl");
        let text = std::fs::read_to_string(&path).expect("reading the project's file");
        let (before, _) = text.split_once("  # chaos\n").or_else(|| text.split_once("  rollout {")).expect("a block `rollout`");
        let before = before.replace("  nodes = 3\n", "").replace("  nodes = 1\n", "");
        let before = before.replace("service \"web\" {\n", &format!("service \"web\" {{\n  nodes = {}\n", self.nodes()));
        let rollout = format!("{before}  # chaos\n{}\n  rollout {{\n {}\n  }}\n}}\n", self.service, self.rollout);
        std::fs::write(&path, rollout).expect("writing the project's file");
    }
}
