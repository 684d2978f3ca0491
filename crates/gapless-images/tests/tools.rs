//! What Puppet and Packer say, as recorded from real runs of Puppet 7.23 and Packer 1.6.6.

use gapless_engine::error::ErrorKind;
use gapless_images::packer::{self, Access};
use gapless_images::puppet;
use serde_json::Value;
use std::collections::BTreeMap;

const HELLO_FIRST: &str = include_str!("recorded/hello-first.yaml");
const HELLO_SECOND: &str = include_str!("recorded/hello-second.yaml");
const CHANGING_SECOND: &str = include_str!("recorded/changing-second.yaml");
const PACKER: &str = include_str!("recorded/packer.log");

#[test]
fn the_first_report_lists_what_was_changed_and_the_second_nothing() {
    let first = puppet::read(HELLO_FIRST).unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].puppet_version, "7.23.0");
    let package = first[0].changes.iter().find(|change| change.resource == "Package[apache2]").unwrap();
    assert_eq!(package.to_string(), "Package[apache2]: ensure created (apache/manifests/init.pp:15)");
    assert!(first[0].changes.len() > 20);
    let second = puppet::read(HELLO_SECOND).unwrap();
    assert!(second[0].changes.is_empty(), "{:?}", second[0].changes);
    puppet::must_be_unchanged(&second).unwrap();
}

#[test]
fn a_second_run_that_changes_something_is_rejected_with_the_resource_and_its_line() {
    let error = puppet::must_be_unchanged(&puppet::read(CHANGING_SECOND).unwrap()).unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("changed 1 resource again"), "{error}");
    assert!(error.to_string().contains("Exec[/usr/bin/touch /srv/again]: returns executed successfully (manifests/site.pp:1)"), "{error}");
    assert!(!error.to_string().contains("/srv/once"), "{error}");
    assert!(error.hint_text().unwrap().contains("unless"));
}

#[test]
fn several_reports_in_one_text_are_all_read() {
    let both = format!("{HELLO_SECOND}{CHANGING_SECOND}");
    let reports = puppet::read(&both).unwrap();
    assert_eq!(reports.iter().map(|report| report.changes.len()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_is_no_report_is_refused() {
    for text in ["--- just a text\n", "a: [1\n", "--- {}\n", "---\nstatus: unchanged\n"] {
        assert_eq!(puppet::read(text).unwrap_err().error_kind(), ErrorKind::Invalid, "{text}");
    }
    let failed = HELLO_SECOND.replace("status: unchanged", "status: failed");
    assert!(puppet::read(&failed).is_err());
}

#[test]
fn packers_output_is_read_with_its_escapes() {
    let message = packer::parse("1795450044,,ui,error,==> node: \u{1b}[1;31mError: one%!(PACKER_COMMA) two\\nthree\u{1b}[0m").unwrap();
    assert_eq!(message.shown().unwrap(), "==> node: Error: one, two\nthree");
    assert!(message.is_error());
    let artifact = packer::parse("1795450044,web,artifact,0,id,us-east-1:ami-0abc").unwrap();
    assert_eq!(
        (artifact.target.as_str(), artifact.kind.as_str(), artifact.data),
        ("web", "artifact", ["0", "id", "us-east-1:ami-0abc"].map(str::to_owned).into())
    );
    for line in ["", "panic: runtime error", "notanumber,a,b,c", "1795450044", "1795450044,a"] {
        assert_eq!(packer::parse(line), None, "{line}");
    }
    let shown: Vec<String> = PACKER.lines().filter_map(packer::parse).filter_map(|message| message.shown()).collect();
    assert!(shown.iter().any(|line| line.contains("Notice: /Stage[main]/Apache/Package[apache2]/ensure: created")));
    assert!(shown.iter().all(|line| !line.contains('\u{1b}') && !line.contains("PACKER_COMMA")), "{shown:?}");
    assert!(packer::errors(PACKER).is_empty());
}

#[test]
fn packers_errors_are_told_once() {
    let output = "1,,ui,error,==> node: Error: Could not parse%!(PACKER_COMMA) line 3\n\
                  1,,ui,error,Build 'node' errored after 2 seconds: Puppet exited with a non-zero exit status: 1\n\
                  1,,error-count,1\n\
                  1,,ui,error,\\n==> Some builds didn't complete successfully and had errors:\n\
                  1,node,error,Puppet exited\n\
                  1,,ui,error,--> node: Error: Could not parse%!(PACKER_COMMA) line 3\n";
    assert_eq!(
        packer::errors(output),
        ["node: Error: Could not parse, line 3", "Build 'node' errored after 2 seconds: Puppet exited with a non-zero exit status: 1"]
    );
}

fn access() -> Access {
    Access { host: "10.0.0.7".into(), private_key_file: "/gapless/key".into() }
}

fn derive(template: &str, variables: &[(&str, &str)]) -> Result<packer::Derived, gapless_engine::error::Error> {
    let variables: BTreeMap<String, String> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    packer::derive(template, &variables, &access(), "/output", "/gapless/remove.sh")
}

#[test]
fn the_template_is_run_with_puppet_twice_and_the_tools_removed_last() {
    let template = r#"{
        "variables": { "ssh_host": "", "size": "1" },
        "builders": [{ "type": "amazon-ebs", "region": "x" }, { "type": "null", "name": "node", "ssh_host": "{{user `ssh_host`}}" }],
        "provisioners": [
            { "type": "shell", "inline": ["one"] },
            { "type": "puppet-masterless", "manifest_file": "a.pp" },
            { "type": "puppet-masterless", "manifest_file": "b.pp", "extra_arguments": ["--test"] }
        ],
        "post-processors": [{ "type": "shell-local", "inline": ["ln -sf /key /output/first.yaml"] }]
    }"#;
    let derived = derive(template, &[("size", "2")]).unwrap();
    assert_eq!((derived.builder.as_str(), derived.applies_puppet), ("node", true));
    assert_eq!(
        derived.variables,
        [("size", "2"), ("ssh_host", "10.0.0.7")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    );
    let root: Value = serde_json::from_str(&derived.template).unwrap();
    assert_eq!(root["builders"][1]["ssh_host"], "10.0.0.7");
    assert_eq!(root["builders"][0]["region"], "x");
    assert!(root.get("post-processors").is_none(), "they would run after the reports were fetched");
    let kinds: Vec<&str> =
        root["provisioners"].as_array().unwrap().iter().map(|provisioner| provisioner["type"].as_str().unwrap()).collect();
    let puppet = ["puppet-masterless", "shell", "puppet-masterless", "shell"];
    assert_eq!(kinds, [&["shell"][..], &puppet, &puppet, &["file", "file", "shell"]].concat());
    assert_eq!(root["provisioners"][7]["extra_arguments"][0], "--test");
    assert_eq!(root["provisioners"].as_array().unwrap().last().unwrap()["script"], "/gapless/remove.sh");
}

#[test]
fn a_template_without_puppet_fetches_no_reports() {
    let derived =
        derive(r#"{ "builders": [{ "type": "null" }], "provisioners": [{ "type": "shell", "inline": ["true"] }] }"#, &[]).unwrap();
    assert!(!derived.applies_puppet && derived.builder == "null" && !derived.template.contains("download"));
}

#[test]
fn what_cannot_be_run_is_said_with_a_hint() {
    for (template, variables, hint) in [
        ("{", &[][..], "packer validate"),
        (r#"{ "builders": [{ "type": "amazon-ebs" }] }"#, &[], "null"),
        (r#"{ "builders": [{ "type": "null" }] }"#, &[("size", "2")], "variables"),
    ] {
        let error = derive(template, variables).unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid);
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
    }
}
