//! What is different between two settings, in the words of `proxy.hcl`.

use crate::show;
use gapless_wire::settings::Settings;
use serde_json::{Map, Value};

/// The most characters of a value that are told.
const SHOWN_LIMIT: usize = 60;

/// The end of a field's name, the end of the setting's, and how its value is written.
type Unit = (&'static str, &'static str, fn(u64) -> String);

/// What ends the names of the language between processes, whose numbers have these units, and how the file says it.
const UNITS: [Unit; 3] = [("_ms", "", time), ("_s", "", |seconds| time(seconds.saturating_mul(1000))), ("_bytes", "_size", size)];

/// One line for each change; none when the two say the same.
pub fn lines(before: &Settings, after: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", &tree(before), &tree(after), &mut lines);
    lines
}

/// Settings as a tree, with what stands in lists by what names it.
fn tree(settings: &Settings) -> Value {
    let Ok(Value::Object(mut tree)) = serde_json::to_value(settings) else { return Value::Null };
    for (list, name, key) in [("listeners", "listener", "address"), ("certificates", "certificate", "chain")] {
        let parts = tree.remove(list).and_then(|list| if let Value::Array(parts) = list { Some(parts) } else { None });
        for mut part in parts.into_iter().flatten() {
            let named = part.as_object_mut().and_then(|part| part.remove(key));
            tree.insert(format!("{name} {}", named.unwrap_or_default()), part);
        }
    }
    let services = tree.remove("services").and_then(|services| if let Value::Object(services) = services { Some(services) } else { None });
    for (name, treatment) in services.into_iter().flatten() {
        tree.insert(format!("service \"{name}\""), treatment);
    }
    Value::Object(tree)
}

fn compare(place: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_parts(place, before, after, lines),
        (Value::Null, Value::Object(_)) => lines.push(format!("{place} added")),
        (Value::Object(_), Value::Null) => lines.push(format!("{place} removed")),
        _ => {
            let (name, show) = in_words(place);
            lines.push(format!("{name}: {} → {}", shown(before, show), shown(after, show)));
        }
    }
}

fn compare_parts(place: &str, before: &Map<String, Value>, after: &Map<String, Value>, lines: &mut Vec<String>) {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let below = if place.is_empty() { name.clone() } else { format!("{place}: {name}") };
        compare(&below, before.get(name).unwrap_or(&Value::Null), after.get(name).unwrap_or(&Value::Null), lines);
    }
}

/// The name as the file says it, and how its numbers are shown.
fn in_words(place: &str) -> (String, fn(u64) -> String) {
    for (ending, instead, show) in UNITS {
        if let Some(name) = place.strip_suffix(ending) {
            return (format!("{name}{instead}"), show);
        }
    }
    (place.to_string(), |number| number.to_string())
}

fn shown(value: &Value, show: fn(u64) -> String) -> String {
    let text = match value {
        Value::Null => "none".to_string(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), show),
        other => other.to_string(),
    };
    if text.chars().count() > SHOWN_LIMIT { text.chars().take(SHOWN_LIMIT).chain(['…']).collect() } else { text }
}

fn time(milliseconds: u64) -> String {
    if milliseconds == 0 { "0 s".to_string() } else { show::span(milliseconds) }
}

fn size(bytes: u64) -> String {
    show::bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_server::settings::parse;
    use std::path::Path;

    fn changed(before: &str, after: &str) -> Vec<String> {
        let parsed = |text: &str| parse("proxy.hcl", text, Path::new("/etc")).unwrap_or_else(|faults| panic!("{faults}"));
        lines(&parsed(before), &parsed(after))
    }

    #[test]
    fn changes_are_told_in_the_words_of_the_file() {
        let before = "listener \"127.0.0.1:80\" {}\naccess_log = \"a\"\nservice \"a/b\" {\n  body_size = \"10MiB\"\n  sticky { cookie = \"x\" }\n}\n";
        let after = "listener \"127.0.0.1:80\" { redirect_to_https = 443 }\nlistener \"127.0.0.1:81\" {}\nclients { idle = \"60s\" }\n\
                     service \"a/b\" {\n  timeouts { answer_body = \"5m\" }\n  also = [\"x.example\"]\n}\nservice \"a/c\" {}\n";
        assert_eq!(changed(before, before), Vec::<String>::new());
        assert_eq!(
            changed(before, after),
            [
                "access_log: \"/etc/a\" → none",
                "clients: idle: 5 min 0 s → 60 s",
                "listener \"127.0.0.1:80\": speaks: \"http\" → {\"redirect-to-https\":443}",
                "listener \"127.0.0.1:81\" added",
                "service \"a/b\": also: [] → [\"x.example\"]",
                "service \"a/b\": body_size: 10.0 MiB → none",
                "service \"a/b\": sticky removed",
                "service \"a/b\": timeouts: answer_body: 0 s → 5 min 0 s",
                "service \"a/c\" added",
            ]
        );
        let long = format!("service \"a/b\" {{\n  maintenance {{ page = \"{}\" }}\n}}\n", "x".repeat(500));
        let told = changed("service \"a/b\" {\n  maintenance {}\n}\n", &long);
        assert_eq!(told, [format!("service \"a/b\": maintenance: page: \"\" → \"{}…", "x".repeat(SHOWN_LIMIT - 1))]);
    }
}
