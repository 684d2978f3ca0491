//! Packer: the template that is run, and what Packer says in its machine-readable output.

use gapless_engine::error::{Error, ErrorKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The port of the build node's sshd. Above 1023, so that no right is needed to listen there.
pub(crate) const SSH_PORT: u16 = 2222;

/// How long Packer waits for the build node's sshd.
const SSH_TIMEOUT: &str = "1m";

/// Where Puppet keeps the report of its last run: Debian's and Ubuntu's packages, then Puppet's own.
const KEEP_REPORT: &str = "mkdir -p /run/gapless; for report in /var/cache/puppet/state/last_run_report.yaml \
    /opt/puppetlabs/puppet/cache/state/last_run_report.yaml; do \
    if [ -e $report ]; then cat $report >> /run/gapless/PASS.yaml; rm $report; fi; done";

/// What is run in the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The template, as JSON.
    pub template: String,
    /// The builder that is run.
    pub builder: String,
    /// Values for the variables that the template declares.
    pub variables: BTreeMap<String, String>,
    /// Whether Puppet is applied.
    pub applies_puppet: bool,
}

/// How the build node is reached, in the words of Packer's communicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The node's address.
    pub host: String,
    /// The path of the private key, as Packer sees it.
    pub private_key_file: String,
}

/// Makes of a project's template the one that is run: its `null` builder with the node's address, its provisioners as they are, then every
/// Puppet provisioner once more, and last the removal of the tools. Puppet's reports are fetched into `reports`, a folder that Packer may write.
/// Post-processors are left out: they treat the artifacts of other builders, and would run after the reports were fetched.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the template is not JSON or has no `null` builder.
pub fn derive(
    template: &str,
    variables: &BTreeMap<String, String>,
    access: &Access,
    reports: &str,
    removal: &str,
) -> Result<Derived, Error> {
    let invalid = |what: String| Error::new(what).kind(ErrorKind::Invalid);
    let mut root: Value = serde_json::from_str(template).map_err(|error| {
        invalid(format!("the template is not JSON: {error}"))
            .hint("gapless runs Packer's JSON templates; `packer validate` shows the place")
    })?;
    let builder = null_builder(&mut root, access)?;
    let provisioners = match root.get("provisioners") {
        None => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(_) => return Err(invalid("`provisioners` of the template is not a list".into())),
    };
    let applies_puppet = provisioners.iter().any(is_puppet);
    root["provisioners"] = Value::Array(all_provisioners(provisioners, applies_puppet, reports, removal));
    if let Some(object) = root.as_object_mut() {
        object.remove("post-processors");
    }
    let variables = chosen_variables(&root, variables, access)?;
    Ok(Derived { template: root.to_string(), builder, variables, applies_puppet })
}

fn null_builder(root: &mut Value, access: &Access) -> Result<String, Error> {
    let builders = root.get_mut("builders").and_then(Value::as_array_mut).into_iter().flatten();
    let Some(builder) = builders.into_iter().find(|builder| builder["type"] == "null") else {
        return Err(Error::new("the template has no builder of the type `null`")
            .kind(ErrorKind::Invalid)
            .hint(r#"add one: { "type": "null", "ssh_host": "{{user `ssh_host`}}", "ssh_username": "root", "ssh_private_key_file": "{{user `ssh_private_key_file`}}" }"#));
    };
    builder["communicator"] = json!("ssh");
    builder["ssh_host"] = json!(access.host);
    builder["ssh_port"] = json!(SSH_PORT);
    builder["ssh_username"] = json!("root");
    builder["ssh_private_key_file"] = json!(access.private_key_file);
    builder["ssh_timeout"] = json!(SSH_TIMEOUT);
    Ok(builder["name"].as_str().unwrap_or("null").to_owned())
}

fn is_puppet(provisioner: &Value) -> bool {
    provisioner["type"] == "puppet-masterless"
}

fn all_provisioners(own: Vec<Value>, applies_puppet: bool, reports: &str, removal: &str) -> Vec<Value> {
    let keep = |pass: &str| json!({ "type": "shell", "inline": [KEEP_REPORT.replace("PASS", pass)] });
    let again: Vec<Value> = own.iter().filter(|provisioner| is_puppet(provisioner)).cloned().collect();
    let mut all = Vec::new();
    for (pass, provisioners) in [("first", own), ("second", again)] {
        for provisioner in provisioners {
            let puppet = is_puppet(&provisioner);
            all.push(provisioner);
            if puppet {
                all.push(keep(pass));
            }
        }
    }
    if applies_puppet {
        for pass in ["first", "second"] {
            all.push(json!({
                "type": "file", "direction": "download",
                "source": format!("/run/gapless/{pass}.yaml"), "destination": format!("{reports}/{pass}.yaml"),
            }));
        }
    }
    all.push(json!({ "type": "shell", "script": removal }));
    all
}

/// The project's values, and the node's for those of the usual names that the template declares: Packer refuses values for others.
fn chosen_variables(root: &Value, own: &BTreeMap<String, String>, access: &Access) -> Result<BTreeMap<String, String>, Error> {
    let declared = |name: &str| root.get("variables").and_then(|variables| variables.get(name)).is_some();
    if let Some(unknown) = own.keys().find(|name| !declared(name)) {
        return Err(Error::new(format!("the template declares no variable `{unknown}`, which gapless.hcl gives a value"))
            .kind(ErrorKind::Invalid)
            .hint("add it to `variables` of the template, or take it out of the image's `packer` block"));
    }
    let mut chosen = own.clone();
    let port = SSH_PORT.to_string();
    for (name, value) in [
        ("ssh_host", access.host.as_str()),
        ("ssh_port", &port),
        ("ssh_username", "root"),
        ("ssh_private_key_file", &access.private_key_file),
    ] {
        if declared(name) {
            chosen.insert(name.into(), value.into());
        }
    }
    Ok(chosen)
}

/// A line of Packer's machine-readable output: `timestamp,target,type,data…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The builder that it is about; empty for Packer itself.
    pub target: String,
    /// Such as `ui`, `artifact`, `error`.
    pub kind: String,
    /// The fields, without their escapes.
    pub data: Vec<String>,
}

/// Reads a line; nothing when it is not of that form (a program that writes past Packer).
#[must_use]
pub fn parse(line: &str) -> Option<Message> {
    let mut fields = line.trim_end_matches(['\r', '\n']).split(',');
    let timestamp = fields.next()?;
    if timestamp.is_empty() || !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (target, kind) = (fields.next()?, fields.next()?);
    Some(Message { target: target.into(), kind: kind.into(), data: fields.map(unescape).collect() })
}

fn unescape(field: &str) -> String {
    field.replace("%!(PACKER_COMMA)", ",").replace("\\n", "\n").replace("\\r", "\r")
}

impl Message {
    /// What Packer would show a person, without colours; nothing for other messages.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        match (self.kind.as_str(), self.data.as_slice()) {
            ("ui", [_, text]) => Some(without_colours(text).trim_matches(['\n', '\r']).to_owned()),
            _ => None,
        }
    }

    /// Whether it tells of an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.kind == "ui" && self.data.first().is_some_and(|kind| kind == "error")
    }
}

/// A text without the control sequences that colour a terminal.
#[must_use]
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
            continue;
        }
        if characters.next() == Some('[') {
            // A control sequence ends with its first letter.
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    plain
}

/// The errors among these lines, each once, in order: Packer repeats them at its end.
#[must_use]
pub fn errors(output: &str) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    for text in output.lines().filter_map(parse).filter(Message::is_error).filter_map(|message| message.shown()) {
        let text = text.trim_start_matches("==> ").trim_start_matches("--> ").trim().to_owned();
        if !text.is_empty() && !errors.contains(&text) && !text.contains("Some builds didn't complete successfully") {
            errors.push(text);
        }
    }
    errors
}
