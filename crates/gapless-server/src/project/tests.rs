//! Good files are read whole; bad ones are refused with place and hint.

use super::Project;
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

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/project/faults.golden.txt");

#[test]
fn bad_files_are_refused_with_place_and_hint() {
    let mut told = String::new();
    for (find, replace) in BAD {
        assert_eq!(GOOD.matches(find).count(), 1, "`{find}` stands once in the good file");
        let faults = Project::parse("gapless.hcl", &GOOD.replace(find, replace)).expect_err(replace);
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
    for open in ["base {", "packer {", "application {", "service \"web\" {", "image \"web\" {", "health {", "resources {", "rollout {"] {
        let unknown = GOOD.replace(open, &format!("{open}\n  no-such-attribute = 1\n  no-such-block {{}}"));
        let faults = Project::parse("gapless.hcl", &unknown).expect_err("unknown");
        for name in faults.0.iter().flat_map(|fault| fault.hint.split('`').skip(1).step_by(2)).filter(|name| !name.contains(' ')) {
            assert!(reference.contains(&format!("`{name}`")), "the reference does not name `{name}`");
            named += 1;
        }
    }
    assert!(named > 30, "only {named} names were compared");
}
