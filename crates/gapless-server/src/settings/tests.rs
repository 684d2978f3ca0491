//! Good files are read whole; bad ones are refused with place and hint.

use super::{parse, read};
use gapless_wire::settings::{Balance, Clients, NodesSpeak, Rate, SETTINGS_VERSION, Settings, Speaks, Timeouts, Treatment};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/etc/gapless";

const GOOD: &str = r#"listener "0.0.0.0:443" { speaks = "https" }
listener "0.0.0.0:80"  { redirect_to_https = 443 }
listener "[::]:5432" {
  tcp       = "shop/database"
  balancers = ["10.0.0.5", "fd00::5"]
}

certificate {
  chain = "shop.pem"
  key   = "/etc/ssl/shop.key"
}

acme {
  directory       = "https://authority.example/directory"
  hosts           = ["shop.example", "www.shop.example"]
  contact         = "mailto:operations@shop.example"
  agrees_to_terms = true
  authorities     = "authorities.pem"
}

access_log = "/var/log/gapless/access.log"
metrics    = "127.0.0.1:9180"

clients {
  idle                    = "60s"
  head                    = "10s"
  head_size               = "32KiB"
  head_fields             = 64
  connections_per_address = 1000
}

service "shop/web" {
  also               = ["www.shop.example", "shop.example/old"]
  nodes_speak        = "http2"
  balance            = "round-robin"
  body_size          = "10MiB"
  requests_in_flight = 1000
  tells_release      = false
  slow_start         = "10s"
  eject_after        = 0
  sticky { cookie = "gapless" }
  testers {
    header = { name = "X-Tester", value = "yes" }
    cookie = { name = "tester", value = "1" }
  }
  rate {
    per_second = 50
    burst      = 100
  }
  timeouts {
    body        = "30s"
    connect     = "500ms"
    answer      = "20s"
    answer_body = "5m"
    unread      = "1m"
  }
  maintenance {
    page        = "<h1>Back at noon</h1>"
    retry_after = "1h"
  }
}
"#;

/// What is replaced in the good file, and with what.
const BAD: &[(&str, &str)] = &[
    ("\"0.0.0.0:443\"", "\"443\""),
    ("\"0.0.0.0:443\"", "\"localhost:443\""),
    ("\"0.0.0.0:443\"", "\"0.0.0.0:0\""),
    ("\"0.0.0.0:443\"", "\"0.0.0.0:80\""),
    ("\"0.0.0.0:443\"", ""),
    ("speaks = \"https\"", "speaks = \"htps\""),
    ("speaks = \"https\"", "speak = \"https\""),
    ("redirect_to_https = 443", "redirect_to_https = 0"),
    ("redirect_to_https = 443", "redirect_to_https = \"443\""),
    ("redirect_to_https = 443", "tcp = \"shop/web\""),
    ("\"shop/database\"", "\"database\""),
    ("\"shop/database\"", "\"shop/database\"\n  speaks = \"http\""),
    ("[\"10.0.0.5\", \"fd00::5\"]", "\"10.0.0.5\""),
    ("[\"10.0.0.5\", \"fd00::5\"]", "[\"10.0.0.0/8\"]"),
    ("[\"10.0.0.5\", \"fd00::5\"]", "[\"0.0.0.0\"]"),
    ("\"shop.pem\"", "\"\""),
    ("  key   = \"/etc/ssl/shop.key\"\n", ""),
    ("\nacme {", "\ncertificate {\n  chain = \"/etc/gapless/shop.pem\"\n  key   = \"other.key\"\n}\n\nacme {"),
    ("certificate {", "certificate \"shop\" {"),
    ("\"https://authority.example/directory\"", "\"http://authority.example/directory\""),
    ("  directory       = \"https://authority.example/directory\"\n", ""),
    ("[\"shop.example\", \"www.shop.example\"]", "[]"),
    ("[\"shop.example\", \"www.shop.example\"]", "[\"Shop.example\"]"),
    ("[\"shop.example\", \"www.shop.example\"]", "[\"*.shop.example\"]"),
    ("[\"shop.example\", \"www.shop.example\"]", "[\"10.0.0.1\"]"),
    ("[\"shop.example\", \"www.shop.example\"]", "[\"shop.example\", \"shop.example\"]"),
    ("\"mailto:operations@shop.example\"", "\"operations\""),
    ("agrees_to_terms = true", ""),
    ("agrees_to_terms = true", "agrees_to_terms = false"),
    ("agrees_to_terms = true", "agrees_to_terms = \"yes\""),
    ("access_log =", "acces_log ="),
    ("\"127.0.0.1:9180\"", "\"0.0.0.0:9180\""),
    ("\"127.0.0.1:9180\"", "9180"),
    ("\"127.0.0.1:9180\"", "\"127.0.0.1:9180\"\nlistener \"127.0.0.1:9180\" {}"),
    ("\"60s\"", "60"),
    ("\"60s\"", "\"0s\""),
    ("\"10s\"\n  head_size", "\"2h\"\n  head_size"),
    ("\"32KiB\"", "\"2MiB\""),
    ("head_fields             = 64", "head_fields             = 129"),
    ("connections_per_address = 1000", "connections_per_address = 0"),
    ("clients {", "client {"),
    ("clients {", "clients {}\nclients {"),
    ("service \"shop/web\" {", "service \"web\" {"),
    ("service \"shop/web\" {", "service {"),
    ("service \"shop/web\" {", "service \"shop/web\" {}\nservice \"shop/web\" {"),
    ("service \"shop/web\" {", "service \"shop/api\" {\n  also = [\"www.shop.example\"]\n}\nservice \"shop/web\" {"),
    ("[\"www.shop.example\", \"shop.example/old\"]", "[\"shop.example/old\", \"shop.example/old\"]"),
    ("\"shop.example/old\"", "\"Shop.example/old\""),
    ("\"shop.example/old\"", "\"shop.example/old/\""),
    ("\"http2\"", "\"http3\""),
    ("\"round-robin\"", "\"robin\""),
    ("sticky { cookie = \"gapless\" }", "sticky {}"),
    ("sticky { cookie = \"gapless\" }", "sticky { cookie = \"a cookie\" }"),
    ("sticky { cookie = \"gapless\" }", "sticky { cookie = \"tester\" }"),
    ("    header = { name = \"X-Tester\", value = \"yes\" }\n    cookie = { name = \"tester\", value = \"1\" }\n", ""),
    ("{ name = \"X-Tester\", value = \"yes\" }", "\"X-Tester\""),
    ("{ name = \"X-Tester\", value = \"yes\" }", "{ name = \"X-Tester\" }"),
    ("{ name = \"X-Tester\", value = \"yes\" }", "{ name = \"X-Tester\", valu = \"yes\" }"),
    ("{ name = \"X-Tester\", value = \"yes\" }", "{ name = \"X Tester\", value = \"yes\" }"),
    ("{ name = \"X-Tester\", value = \"yes\" }", "{ name = \"X-Tester\", value = \"\" }"),
    ("{ name = \"X-Tester\", value = \"yes\" }", "{ name = \"X-Tester\", value = \"jä\" }"),
    ("{ name = \"tester\", value = \"1\" }", "{ name = \"tester\", value = \"1; 2\" }"),
    ("\"10MiB\"", "\"10MB\""),
    ("\"10MiB\"", "\"0KiB\""),
    ("requests_in_flight = 1000", "requests_in_flight = 0"),
    ("    per_second = 50\n", ""),
    ("per_second = 50", "per_second = 0"),
    ("\"500ms\"", "\"5ms\""),
    ("\"500ms\"", "\"25h\""),
    ("timeouts {", "timeout {"),
    ("\"<h1>Back at noon</h1>\"", "\"<h1>Back</h1>\"\n    page_file = \"nowhere.html\""),
    ("\"1h\"", "\"1500ms\""),
    ("\"1h\"", "\"0s\""),
    ("tells_release      = false", "tells_release      = \"no\""),
    ("\"10s\"\n  eject_after", "\"2h\"\n  eject_after"),
    ("eject_after        = 0", "eject_after        = -1"),
    ("eject_after        = 0", "eject_after        = 0\n  sticky             = \"gapless\""),
];

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/settings/faults.golden.txt");

fn parsed(text: &str) -> Settings {
    parse("proxy.hcl", text, Path::new(FOLDER)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> String {
    parse("proxy.hcl", text, Path::new(FOLDER)).expect_err(text).to_string()
}

#[test]
fn bad_files_are_refused_with_place_and_hint() {
    let mut told = String::new();
    for (find, replace) in BAD {
        assert_eq!(GOOD.matches(find).count(), 1, "`{find}` stands once in the good file");
        let _ = writeln!(told, "### {find:?} → {replace:?}\n{}\n", faults(&GOOD.replace(find, replace)));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &told).expect("golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("golden file");
    let difference = told.lines().zip(golden.lines()).find(|(told, golden)| told != golden);
    assert!(told == golden, "run with UPDATE_GOLDEN=1 and review the difference, which begins with {difference:?}");
}

#[test]
fn the_frame_of_a_good_file_is_read_whole() {
    let settings = parsed(GOOD);
    assert_eq!(settings.version, SETTINGS_VERSION);
    let listeners: Vec<_> = settings.listeners.iter().map(|listener| (listener.address.to_string(), &listener.speaks)).collect();
    let database = Speaks::Tcp("shop/database".into());
    let wanted = [("0.0.0.0:443", &Speaks::Https), ("0.0.0.0:80", &Speaks::RedirectToHttps(443)), ("[::]:5432", &database)]
        .map(|(at, what)| (at.to_string(), what));
    assert_eq!(listeners, wanted);
    assert_eq!(settings.listeners[2].balancers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.5", "fd00::5"]);
    assert_eq!(settings.certificates[0].chain, Path::new("/etc/gapless/shop.pem"));
    assert_eq!(settings.certificates[0].key, Path::new("/etc/ssl/shop.key"));
    let acme = settings.acme.as_ref().expect("acme");
    assert_eq!((acme.contact.as_deref(), acme.agrees_to_terms, acme.hosts.len()), (Some("operations@shop.example"), true, 2));
    assert_eq!(acme.authorities.as_deref(), Some(Path::new("/etc/gapless/authorities.pem")));
    assert_eq!(settings.access_log, Some(PathBuf::from("/var/log/gapless/access.log")));
    assert_eq!(settings.metrics, Some("127.0.0.1:9180".parse().expect("address")));
    let clients = Clients { idle_ms: 60_000, head_ms: 10_000, head_bytes: 32 << 10, head_fields: 64, connections_per_address: Some(1000) };
    assert_eq!(settings.clients, clients);
}

#[test]
fn the_services_of_a_good_file_are_read_whole() {
    let settings = parsed(GOOD);
    let web = &settings.services["shop/web"];
    assert_eq!(web.also, ["www.shop.example", "shop.example/old"]);
    assert_eq!((web.nodes_speak, web.balance), (NodesSpeak::Http2, Balance::RoundRobin));
    assert_eq!(web.sticky.as_ref().map(|sticky| sticky.cookie.as_str()), Some("gapless"));
    let testers = web.testers.clone().expect("testers");
    assert_eq!(testers.header, Some(("x-tester".into(), "yes".into())));
    assert_eq!(testers.cookie, Some(("tester".into(), "1".into())));
    assert_eq!((web.body_bytes, web.requests_in_flight, web.rate), (Some(10 << 20), Some(1000), Some(Rate { per_second: 50, burst: 100 })));
    let timeouts = Timeouts { body_ms: 30_000, connect_ms: 500, answer_ms: 20_000, answer_body_ms: 300_000, unread_ms: 60_000 };
    assert_eq!(web.timeouts, timeouts);
    let maintenance = web.maintenance.clone().expect("maintenance");
    assert_eq!((maintenance.page.as_str(), maintenance.retry_after_s), ("<h1>Back at noon</h1>", Some(3600)));
    assert_eq!((web.tells_release, web.slow_start_ms, web.eject_after), (false, 10_000, None));
    let told = serde_json::to_string(&settings).expect("JSON");
    assert_eq!(serde_json::from_str::<Settings>(&told).expect("the proxy's language"), settings);
}

#[test]
fn what_is_left_out_has_its_default() {
    let none = Settings { version: SETTINGS_VERSION, ..Settings::default() };
    assert_eq!(parsed(""), none);
    assert_eq!(parsed("clients {}\n"), none);
    let settings =
        parsed("listener \"127.0.0.1:8080\" {}\nservice \"a/b\" {\n  timeouts {}\n  maintenance {}\n  rate { per_second = 7 }\n}\n");
    assert_eq!(settings.listeners[0].speaks, Speaks::Http);
    let wanted = Treatment { maintenance: Some(Default::default()), rate: Some(Rate { per_second: 7, burst: 7 }), ..Treatment::default() };
    assert_eq!(settings.services["a/b"], wanted);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let https = "listener \"0.0.0.0:443\" { speaks = \"https\" }\n";
    let acme = "acme {\n  directory = \"https://authority.example/\"\n  hosts = [\"shop.example\"]\n  agrees_to_terms = true\n}\n";
    let told = faults(https);
    assert!(told.starts_with("proxy.hcl:1:1: this listener speaks `https`, but there is no certificate\n"), "{told}");
    let told = faults(&format!("{https}{acme}"));
    assert!(
        told.starts_with("proxy.hcl:2:1: an authority asks for its proof on port 80, where no listener of this file speaks HTTP\n"),
        "{told}"
    );
    assert!(faults(&format!("{https}{acme}listener \"0.0.0.0:80\" {{ tcp = \"a/b\" }}\n")).contains("port 80"));
    for plain in ["{}", "{ redirect_to_https = 443 }"] {
        parsed(&format!("{https}{acme}listener \"0.0.0.0:80\" {plain}\n"));
    }
    parsed(&format!("{https}certificate {{\n  chain = \"a.pem\"\n  key = \"a.key\"\n}}\n"));
}

#[test]
fn there_are_bounds() {
    let listeners = |count: u16| (1..=count).fold(String::new(), |text, port| text + &format!("listener \"127.0.0.1:{port}\" {{}}\n"));
    parsed(&listeners(100));
    assert!(faults(&listeners(101)).contains("101 listeners; at most 100 may be in one file"));
    let services = |count: u16| (0..count).fold(String::new(), |text, number| text + &format!("service \"a/s{number}\" {{}}\n"));
    parsed(&services(1000));
    assert!(faults(&services(1001)).contains("1001 services; at most 1000 may be in one file"));
    let places = |count: u16| {
        let places: Vec<String> = (0..count).map(|number| format!("\"*/p{number}\"")).collect();
        format!("service \"a/b\" {{ also = [{}] }}\n", places.join(", "))
    };
    parsed(&places(100));
    assert!(faults(&places(101)).contains("`also` has 101 places"));
    let page = |length: usize| format!("service \"a/b\" {{\n  maintenance {{ page = \"{}\" }}\n}}\n", "x".repeat(length));
    parsed(&page(256 << 10));
    assert!(faults(&page((256 << 10) + 1)).contains("`page` has 262145 bytes"));
}

#[test]
fn a_file_is_read_with_its_pages_from_its_own_folder() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("proxy.hcl");
    let problem = read(&file).expect_err("it is not there");
    assert!(problem.what.contains("cannot be read: No such file"), "{problem:?}");
    assert_eq!(problem.hint.as_deref(), Some("write it, or name another file with `--settings`"));
    let page = |page: &str| format!("access_log = \"access.log\"\nservice \"a/b\" {{\n  maintenance {{ page_file = \"{page}\" }}\n}}\n");
    std::fs::write(&file, page("page.html")).expect("file");
    let problem = read(&file).expect_err("the page is not there");
    assert!(problem.place.expect("place").contains("page.html, which cannot be read: No such file"));
    std::fs::write(folder.path().join("page.html"), "<p>soon</p>").expect("page");
    let settings = read(&file).expect("good");
    assert_eq!(settings.services["a/b"].maintenance.as_ref().map(|maintenance| maintenance.page.as_str()), Some("<p>soon</p>"));
    assert_eq!(settings.access_log, Some(folder.path().join("access.log")));
    std::fs::write(folder.path().join("page.html"), [0xff, 0xfe]).expect("page");
    assert!(read(&file).expect_err("no text").place.expect("place").contains("no UTF-8"));
    std::fs::write(folder.path().join("page.html"), "x".repeat((256 << 10) + 1)).expect("page");
    assert!(read(&file).expect_err("too long").place.expect("place").contains("longer than 262144 bytes"));
    std::fs::write(&file, "metrics = 1\nclient {}\n").expect("file");
    let problem = read(&file).expect_err("two faults");
    assert!(problem.what.ends_with("proxy.hcl has 2 faults"), "{problem:?}");
    std::fs::write(&file, [0xff]).expect("file");
    assert!(read(&file).expect_err("no text").what.ends_with("is no UTF-8 text"));
    std::fs::write(&file, vec![b'#'; super::FILE_LIMIT + 5]).expect("file");
    assert!(read(&file).expect_err("too long").place.expect("place").contains("at most 1048576 are read"));
}

/// What the parser knows is read off its own hints about an unknown name.
#[test]
fn the_reference_names_everything_that_may_stand_in_the_file() {
    let reference = include_str!("../../../../docs/reference/proxy-hcl.md");
    let mut named = 0;
    let opens = [
        "[::]:5432\" {",
        "certificate {",
        "acme {",
        "clients {",
        "\"shop/web\" {",
        "sticky {",
        "testers {",
        "rate {",
        "timeouts {",
        "maintenance {",
    ];
    for open in opens {
        let unknown = GOOD.replace(open, &format!("{open}\n  no-such-attribute = 1\n  no-such-block {{}}\n"));
        // A block on one line takes no second attribute.
        let unknown = if open == "sticky {" { unknown.replace(" cookie = \"gapless\" }", " cookie = \"gapless\"\n }") } else { unknown };
        let unknown = unknown + "no-such-attribute = 1\nno-such-block {}\n";
        let faults = parse("proxy.hcl", &unknown, Path::new(FOLDER)).expect_err("unknown");
        for name in faults.0.iter().flat_map(|fault| fault.hint.split('`').skip(1).step_by(2)).filter(|name| !name.contains(' ')) {
            assert!(reference.contains(&format!("`{name}`")), "the reference does not name `{name}`");
            named += 1;
        }
    }
    assert!(named > 70, "only {named} names were compared");
}

#[test]
fn the_example_of_the_reference_is_read() {
    let reference = include_str!("../../../../docs/reference/proxy-hcl.md");
    let mut examples = reference.split("```hcl\n").skip(1).filter_map(|rest| rest.split("```").next()).peekable();
    assert!(examples.peek().is_some(), "there is an example");
    for example in examples {
        parsed(example);
    }
}
