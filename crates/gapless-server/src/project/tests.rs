//! Good files are read whole; bad ones are refused with place and hint.

use super::Project;
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::policy::{CanaryPause, CanaryStep, KEEP_DEFAULT, Strategy, Supersede};
use gapless_engine::declaration::{CheckKind, Hook, StopSignal};
use std::fmt::Write;
use std::time::Duration;

const GOOD: &str = r#"project "hello" {}

image "web" {
  base {
    suite    = "bookworm"
    packages = ["curl"]
  }
  packer {
    template  = "packer/web.json"
    variables = { colour = "green" }
  }
  application {
    source      = "app"
    destination = "/srv/app"
  }
}

service "web" {
  image    = "web"
  host     = "localhost"
  nodes    = 3
  port     = 80
  command  = ["/usr/sbin/apache2", "-DFOREGROUND"]
  writable = ["/run", "/tmp"]
  volumes  = { data = "/var/lib/web" }
  health {
    path     = "/healthz"
    interval = "250ms"
  }
  resources {
    memory = "64MiB"
    cpus   = "0.5"
  }
  rollout {
    floor = 2
    bake  = "5m"
  }
}
"#;

/// What is replaced in the good file, and with what.
const BAD: &[(&str, &str)] = &[
    ("nodes    = 3", "node     = 3"),
    ("nodes    = 3", "nodes    = 0"),
    ("nodes    = 3", "nodes    = 101"),
    ("nodes    = 3", "nodes    = 2.5"),
    ("nodes    = 3", "nodes    = \"3\""),
    ("nodes    = 3", "nodes    = 1"),
    ("port     = 80", ""),
    ("port     = 80", "port     = 65536"),
    ("host     = \"localhost\"", "host     = \"LocalHost:80\""),
    ("host     = \"localhost\"", "host     = \"/api\""),
    ("host     = \"localhost\"", "host     = \"localhost/\""),
    ("host     = \"localhost\"", "host     = \"localhost/api/\""),
    ("host     = \"localhost\"", "host     = \"localhost//api\""),
    ("host     = \"localhost\"", "host     = \"localhost/api/../admin\""),
    ("host     = \"localhost\"", "host     = \"localhost/a%20b\""),
    ("image    = \"web\"", "image    = \"wed\""),
    ("image    = \"web\"", "image    = web"),
    ("[\"/usr/sbin/apache2\", \"-DFOREGROUND\"]", "\"/usr/sbin/apache2\""),
    ("[\"/usr/sbin/apache2\", \"-DFOREGROUND\"]", "[\"apache2\"]"),
    ("[\"/usr/sbin/apache2\", \"-DFOREGROUND\"]", "[]"),
    ("[\"/run\", \"/tmp\"]", "[\"run\"]"),
    ("[\"/run\", \"/tmp\"]", "[\"/run\", \"/run\"]"),
    ("[\"/run\", \"/tmp\"]", "[\"/proc\"]"),
    ("[\"/run\", \"/tmp\"]", "[\"/run/../etc\"]"),
    ("{ data = \"/var/lib/web\" }", "{ Data = \"/var/lib/web\" }"),
    ("{ data = \"/var/lib/web\" }", "[\"/var/lib/web\"]"),
    ("\"250ms\"", "250"),
    ("\"250ms\"", "\"250\""),
    ("\"250ms\"", "\"250 miles\""),
    ("\"250ms\"", "\"10ms\""),
    ("\"64MiB\"", "64"),
    ("\"64MiB\"", "\"64MB\""),
    ("\"64MiB\"", "\"1KiB\""),
    ("\"0.5\"", "\"0.0001\""),
    ("\"5m\"", "\"25h\""),
    ("\"5m\"", "\"99999999999999999999h\""),
    ("\"/healthz\"", "\"healthz\""),
    ("\"/healthz\"", "\"/${path}\""),
    ("health {", "helth {"),
    ("  health {", "  health \"main\" {"),
    ("floor = 2", "flor = 2"),
    ("rollout {", "rollout = {"),
    ("project \"hello\" {}\n", ""),
    ("project \"hello\" {}", "project \"Hello\" {}"),
    ("project \"hello\" {}", "project {}"),
    ("project \"hello\" {}", "project \"hello\" {}\nproject \"again\" {}"),
    ("service \"web\" {", "service \"web\" \"other\" {"),
    (
        "service \"web\" {",
        "service \"two\" {\n  image = \"web\"\n  host = \"localhost\"\n  port = 80\n  command = [\"/bin/x\"]\n}\nservice \"web\" {",
    ),
    (
        "service \"web\" {",
        "service \"web\" {\n  image = \"web\"\n  host = \"other\"\n  port = 80\n  command = [\"/bin/x\"]\n}\nservice \"web\" {",
    ),
    ("source      = \"app\"", "source      = \"../app\""),
    ("source      = \"app\"", "source      = \"/app\""),
    ("destination = \"/srv/app\"", "destination = \"srv/app\""),
    ("template  = \"packer/web.json\"", ""),
    ("[\"curl\"]", "[\"--force\"]"),
    ("{ colour = \"green\" }", "{ colour = 7 }"),
    ("nodes    = 3", "nodes    = 3\n  nodes    = 4"),
    ("nodes    = 3", "nodes    3"),
    ("    bake  = \"5m\"\n  }\n}", "    bake  = \"5m\"\n  }"),
    ("\"bookworm\"", "\"bookworm"),
    ("nodes    = 3", "node     = 3\n  prot = 8080\n  environment = { \"1X\" = \"y\" }"),
];

/// A file with every strategy but the default one, and with what only some services have.
const MORE: &str = r#"project "shop" {}

image "app" {}

service "web" {
  image           = "app"
  host            = "shop.test"
  nodes           = 4
  port            = 8080
  command         = ["/bin/serve"]
  stop_signal     = "WINCH"
  release_command = ["/bin/migrate", "--up"]
  hooks {
    before_shift = ["/bin/smoke-test"]
  }
  rollout {
    strategy            = "rolling"
    surge               = 0
    floor               = 3
    bake                = "0s"
    task_deadline       = "5m"
    supersede           = "replace"
    freeze              = ["Fri 16:00 - Mon 08:00", "Wed 12:00 - Wed 13:00"]
    backward_compatible = false
    keep                = 3
  }
}

service "api" {
  image    = "app"
  host     = "api.test"
  port     = 8081
  command  = ["/bin/api"]
  hooks {
    after_shift = "http://127.0.0.1:9000/shifted"
  }
  rollout {
    strategy = "canary"
    step {
      percent = 5
      pause   = "2m"
    }
    step {
      percent = 25
      pause   = "person"
    }
    analysis {
      minimum_requests = 400
      error_margin     = "0.25%"
      latency_margin   = "15%"
    }
  }
}

service "mail" {
  image    = "app"
  command  = ["/bin/mail"]
  together = "orders"
}

service "worker" {
  image    = "app"
  command  = ["/bin/work"]
  together = "orders"
  health {
    stay_up = "20s"
  }
  rollout {
    strategy = "recreate"
    progress = "90s"
  }
}
"#;

const MORE_BAD: &[(&str, &str)] = &[
    ("\"rolling\"", "\"roling\""),
    ("\"rolling\"", "\"blue-green\""),
    ("surge               = 0", "surge               = 101"),
    ("floor               = 3", "floor               = 0"),
    ("floor               = 3", "floor               = 4"),
    ("floor               = 3", "floor               = 5"),
    ("bake                = \"0s\"", "bake                = \"5m\""),
    ("\"replace\"", "\"replce\""),
    ("\"Fri 16:00 - Mon 08:00\", ", "\"Friday 16:00 - Mon 08:00\", "),
    ("\"Fri 16:00 - Mon 08:00\", ", "\"Fri 16:00\", "),
    ("\"Fri 16:00 - Mon 08:00\", ", "\"Fri 24:00 - Mon 08:00\", "),
    ("\"Fri 16:00 - Mon 08:00\", ", "\"Mon 08:00 - Mon 08:00\", "),
    ("\"Fri 16:00 - Mon 08:00\", ", "\"Mon 08:00 - Fri 16:00\", \"Fri 12:00 - Mon 08:00\", "),
    ("[\"Fri 16:00 - Mon 08:00\", \"Wed 12:00 - Wed 13:00\"]", "\"Fri 16:00 - Mon 08:00\""),
    ("backward_compatible = false", "backward_compatible = \"no\""),
    ("keep                = 3", "keep                = 0"),
    ("task_deadline       = \"5m\"", "task_deadline       = \"0s\""),
    ("\"WINCH\"", "\"WITCH\""),
    ("\"WINCH\"", "\"KILL\""),
    ("[\"/bin/migrate\", \"--up\"]", "\"/bin/migrate --up\""),
    ("[\"/bin/smoke-test\"]", "[\"smoke-test\"]"),
    ("\"http://127.0.0.1:9000/shifted\"", "\"https://hooks.test/shifted\""),
    ("\"http://127.0.0.1:9000/shifted\"", "\"/bin/notify\""),
    ("\"http://127.0.0.1:9000/shifted\"", "true"),
    ("after_shift =", "on_shift    ="),
    ("percent = 5\n", "percent = 25\n"),
    ("percent = 5\n", "percent = 30\n"),
    ("percent = 5\n", "percent = 0\n"),
    ("percent = 25\n", "percent = 100\n"),
    ("      percent = 5\n", ""),
    ("      pause   = \"2m\"\n", ""),
    ("\"2m\"", "2"),
    ("\"person\"", "\"a person\""),
    ("\"canary\"", "\"blue-green\""),
    (
        "    step {\n      percent = 5\n      pause   = \"2m\"\n    }\n    step {\n      percent = 25\n      pause   = \"person\"\n    }\n",
        "",
    ),
    ("minimum_requests = 400", "minimum_requests = 0"),
    ("\"0.25%\"", "\"0.255%\""),
    ("\"0.25%\"", "0.25"),
    ("\"0.25%\"", "\"0%\""),
    ("\"15%\"", "\"0%\""),
    ("\"15%\"", "\"15.5%\""),
    ("\"15%\"", "\"1001%\""),
    ("  port     = 8081\n", ""),
    ("  command  = [\"/bin/work\"]\n", "  command  = [\"/bin/work\"]\n  host     = \"work.test\"\n"),
    ("stay_up = \"20s\"", "path = \"/healthz\""),
    ("stay_up = \"20s\"", "stay_up = \"20s\"\n    command = [\"/bin/check\"]"),
    ("stay_up = \"20s\"", "command = \"check\""),
    ("stay_up = \"20s\"", "stay_up = \"20s\"\n    passes = 75\n    interval = \"1s\""),
    ("  command  = [\"/bin/work\"]\n", "  command  = [\"/bin/work\"]\n  nodes    = 2\n"),
    ("before_shift = [\"/bin/smoke-test\"]", "after_shift = [\"/bin/smoke-test\"]"),
    ("    stay_up = \"20s\"\n  }\n", "    stay_up = \"20s\"\n  }\n  hooks {\n    after_shift = [\"/bin/smoke-test\"]\n  }\n"),
    ("  command  = [\"/bin/mail\"]\n", "  command  = [\"/bin/mail\"]\n  rollout {\n    strategy = \"rolling\"\n  }\n"),
    ("  command  = [\"/bin/api\"]\n", "  command  = [\"/bin/api\"]\n  together = \"orders\"\n"),
    ("progress = \"90s\"", "progress = \"22s\""),
    ("progress = \"90s\"", "floor    = 1"),
    ("progress = \"90s\"", "bake     = \"5m\""),
    ("strategy = \"recreate\"\n    progress = \"90s\"", "bake     = \"5m\""),
    ("progress = \"90s\"", "progress = \"90s\"\n    freeze   = [\"Fri 16:00 - Mon 08:00\"]"),
    ("together = \"orders\"\n  health", "together = \"order\"\n  health"),
    ("together = \"orders\"\n  health", "together = \"Orders!\"\n  health"),
    ("  stop_signal     = \"WINCH\"\n", "  health {\n    stay_up = \"10s\"\n    command = [\"/bin/check\"]\n  }\n"),
    ("  stop_signal     = \"WINCH\"\n", "  health {\n    interval = \"5m\"\n    passes = 3\n  }\n"),
];

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/project/faults.golden.txt");

#[test]
fn bad_files_are_refused_with_place_and_hint() {
    let mut told = String::new();
    for (good, (find, replace)) in BAD.iter().map(|bad| (GOOD, bad)).chain(MORE_BAD.iter().map(|bad| (MORE, bad))) {
        assert_eq!(good.matches(find).count(), 1, "`{find}` stands once in the good file");
        let faults = Project::parse("gapless.hcl", &good.replace(find, replace)).expect_err(replace);
        let _ = writeln!(told, "### {find:?} → {replace:?}\n{faults}\n");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &told).expect("golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("golden file");
    let difference = told.lines().zip(golden.lines()).find(|(told, golden)| told != golden);
    assert!(told == golden, "run with UPDATE_GOLDEN=1 and review the difference, which begins with {difference:?}");
}

#[test]
fn a_good_file_is_read_whole() {
    let project = Project::parse("gapless.hcl", GOOD).expect("good");
    assert_eq!(project.name, "hello");
    let web = &project.services["web"];
    assert_eq!((web.nodes, web.node.port, web.host.as_str()), (3, Some(80), "localhost"));
    assert_eq!((web.node.memory_bytes, web.node.cpu_millicores), (64 << 20, 500));
    assert_eq!((web.policy.floor, web.policy.bake, web.policy.drain_deadline), (2, Duration::from_secs(300), Duration::from_secs(30)));
    assert_eq!(web.health.interval, Duration::from_millis(250));
    assert_eq!(project.images["web"].packer.as_ref().map(|packer| packer.variables["colour"].as_str()), Some("green"));
    assert_eq!(project.artifact_name("web"), "hello/web");
}

#[test]
fn services_divide_a_host_by_paths() {
    let services = ["shop.test", "shop.test/api", "shop.test/api/v2", "*", "*/api"];
    let text = services.iter().enumerate().fold("project \"p\" {}\nimage \"i\" {}\n".to_string(), |text, (number, host)| {
        let service = format!("  image = \"i\"\n  host = \"{host}\"\n  port = 80\n  command = [\"/bin/serve\"]\n");
        text + &format!("service \"s{number}\" {{\n{service}}}\n")
    });
    let project = Project::parse("gapless.hcl", &text).expect("five hosts");
    assert_eq!(project.services.values().map(|service| service.host.as_str()).collect::<Vec<_>>(), services);
    let faults = Project::parse("gapless.hcl", &text.replace("\"*/api\"", "\"shop.test/api\"")).expect_err("two have one").to_string();
    assert!(faults.contains("host \"shop.test/api\" is already answered by service \"s1\""), "{faults}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = "project \"p\" {}\nimage \"i\" {}\nservice \"s\" {\n  image = \"i\"\n  port = 8080\n  command = [\"/bin/serve\"]\n}\n";
    let project = Project::parse("gapless.hcl", text).expect("good");
    let service = &project.services["s"];
    assert_eq!((service.nodes, service.policy.floor, service.host.as_str()), (2, 2, "*"));
    assert_eq!((service.policy.gate_passes, service.policy.gate_failures), (2, 3));
    assert_eq!(project.images["i"].base.suite, "host");
    assert!(project.images["i"].packer.is_none() && project.images["i"].application.is_none());
}

#[test]
fn every_strategy_is_read_whole() {
    let project = Project::parse("gapless.hcl", MORE).expect("good");
    let [web, api, mail, worker] = ["web", "api", "mail", "worker"].map(|name| &project.services[name]);
    assert_eq!(web.policy.strategy, Strategy::Rolling { surge: 0 });
    assert_eq!((web.policy.floor, web.policy.bake, web.policy.task_deadline), (3, Duration::ZERO, Duration::from_secs(300)));
    assert_eq!((web.policy.supersede, web.policy.breaks_the_way_back, web.policy.keep), (Supersede::Replace, true, 3));
    assert_eq!(web.policy.freeze.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Fri 16:00 - Mon 08:00", "Wed 12:00 - Wed 13:00"]);
    assert_eq!(web.node.stop_signal, StopSignal::Winch);
    assert_eq!(web.tasks.release_command.as_deref(), Some(&["/bin/migrate".to_string(), "--up".to_string()][..]));
    assert_eq!(web.tasks.before_shift, Some(Hook::Command(vec!["/bin/smoke-test".into()])));
    assert_eq!(api.tasks.after_shift, Some(Hook::Http { url: "http://127.0.0.1:9000/shifted".into() }));
    let steps = vec![
        CanaryStep { percent: 5, pause: CanaryPause::For(Duration::from_secs(120)) },
        CanaryStep { percent: 25, pause: CanaryPause::Person },
    ];
    let analysis = Some(AnalysisPolicy { minimum_requests: 400, error_margin: 25, latency_margin: 15 });
    assert_eq!(api.policy.strategy, Strategy::Canary { steps, analysis });
    assert_eq!((api.policy.floor, api.policy.bake, api.policy.keep), (2, Duration::from_secs(300), KEEP_DEFAULT));
    assert_eq!((worker.node.port, worker.host.as_str(), &worker.policy.strategy), (None, "", &Strategy::Recreate));
    assert_eq!((worker.nodes, worker.policy.floor, worker.policy.bake), (1, 0, Duration::ZERO));
    assert_eq!(worker.health.kind, CheckKind::StayUp { span: Duration::from_secs(20) });
    assert_eq!((mail.together.as_deref(), worker.together.as_deref(), &web.together), (Some("orders"), Some("orders"), &None));
}

#[test]
fn the_defaults_of_a_strategy_are_its_own() {
    let policy = |rollout: &str, port: &str| {
        let text = format!(
            "project \"p\" {{}}\nimage \"i\" {{}}\nservice \"s\" {{\n  image = \"i\"\n{port}  command = [\"/bin/serve\"]\n{rollout}}}\n"
        );
        Project::parse("gapless.hcl", &text).expect(rollout).services["s"].policy.clone()
    };
    let of = |strategy: &str| policy(&format!("  rollout {{\n    {strategy}\n  }}\n"), "  port = 80\n  nodes = 3\n");
    let rolling = of("strategy = \"rolling\"");
    assert_eq!((rolling.strategy, rolling.floor, rolling.bake), (Strategy::Rolling { surge: 1 }, 3, Duration::ZERO));
    assert_eq!(of("strategy = \"rolling\"\n    surge = 0").floor, 2);
    assert_eq!(policy("  rollout {\n    strategy = \"recreate\"\n  }\n", "").floor, 0);
    let plain = of("strategy = \"blue-green\"");
    assert_eq!((plain.floor, plain.bake), (3, Duration::from_secs(300)));
    assert_eq!(plain, policy("", "  port = 80\n  nodes = 3\n"), "an empty block says nothing");
    let worker = Project::parse(
        "gapless.hcl",
        "project \"p\" {}\nimage \"i\" {}\nservice \"s\" {\n  image = \"i\"\n  command = [\"/bin/work\"]\n}\n",
    );
    assert_eq!(worker.expect("good").services["s"].health.kind, CheckKind::StayUp { span: Duration::from_secs(10) });
}

#[test]
fn a_node_with_a_port_passes_its_gate_in_tenths_of_the_interval() {
    let parsed = |interval: &str, passes: u32, progress: &str| {
        let health = format!("health {{\n    interval = \"{interval}\"\n    passes = {passes}\n  }}");
        let service = format!(
            "image = \"i\"\n  port = 80\n  command = [\"/bin/serve\"]\n  {health}\n  rollout {{\n    progress = \"{progress}\"\n  }}"
        );
        Project::parse("gapless.hcl", &format!("project \"p\" {{}}\nimage \"i\" {{}}\nservice \"s\" {{\n  {service}\n}}\n"))
    };
    assert!(parsed("30s", 2, "60s").is_ok(), "the second pass comes after 3 s");
    assert!(parsed("10s", 11, "11s").is_ok());
    let faults = parsed("10s", 11, "10s").expect_err("ten more passes take 10 s").to_string();
    assert!(faults.contains("10 passes after the first × 1s (from check to check of a node on trial) = 10s"), "{faults}");
    assert!(parsed("50ms", 51, "1s").is_err(), "never sooner than after 20 ms");
}

#[test]
fn the_example_is_read() {
    let text = include_str!("../../../../examples/hello/gapless.hcl");
    let project = Project::parse("gapless.hcl", text).expect("the example is good");
    assert_eq!(project.services["web"].node.port, Some(80));
}

/// What the parser knows is read off its own hints about an unknown name.
#[test]
fn the_reference_names_everything_that_may_stand_in_the_file() {
    let reference = include_str!("../../../../docs/reference/gapless-hcl.md");
    let mut named = 0;
    let good = ["base {", "packer {", "application {", "service \"web\" {", "image \"web\" {", "health {", "resources {", "rollout {"];
    let more = ["hooks {", "step {", "analysis {"];
    for (text, open) in good.map(|open| (GOOD, open)).into_iter().chain(more.map(|open| (MORE, open))) {
        let unknown = text.replace(open, &format!("{open}\n  no-such-attribute = 1\n  no-such-block {{}}"));
        let faults = Project::parse("gapless.hcl", &unknown).expect_err("unknown");
        for name in faults.0.iter().flat_map(|fault| fault.hint.split('`').skip(1).step_by(2)).filter(|name| !name.contains(' ')) {
            assert!(reference.contains(&format!("`{name}`")), "the reference does not name `{name}`");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} names were compared");
}
