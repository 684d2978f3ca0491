//! From a commit to an image with the real tools: mmdebstrap, Packer, Puppet. Needs root, runc, git and a package mirror.

mod common;

use common::{PUPPET, Site, provisioned, template};
use gapless_engine::error::ErrorKind;
use gapless_engine::workbench::{BenchRequest, Workbench};
use gapless_images::build::Built;
use gapless_images::progress::Phase;
use gapless_images::spec::{ApplicationSpec, ImageSpec, PackerSpec};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn hello() -> ImageSpec {
    ImageSpec {
        packer: Some(PackerSpec { template: "packer/hello.json".into(), variables: Default::default() }),
        application: Some(ApplicationSpec { source: "app".into(), destination: "/srv/app".into(), owner: "root".into() }),
        ..ImageSpec::default()
    }
}

fn copy_hello(site: &Site) {
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hello");
    let status = Command::new("cp").arg("-r").arg(format!("{}/.", hello.display())).arg(site.repository()).status().unwrap();
    assert!(status.success());
}

fn layer(built: &Built, phase: Phase) -> gapless_core::digest::Digest {
    built.layers.iter().find(|layer| layer.phase == phase).unwrap().digest
}

#[test]
fn hello_is_built_once_and_then_only_what_changed() {
    let site = Site::new();
    copy_hello(&site);
    let first = site.build(&hello(), "first").unwrap();
    assert!(first.changes.contains(&"Package[apache2]".to_owned()), "{:?}", first.changes);
    assert_eq!(site.packer_runs(), 1);
    assert!(first.metadata.contains_key("puppet.version") && first.metadata.contains_key("commit"), "{:?}", first.metadata);
    apache_runs_without_the_tools(&site, &first);

    site.write("app/public/version", "2\n");
    let second = site.build(&hello(), "second").unwrap();
    assert_eq!(site.packer_runs(), 1, "Packer was started for a change of the application alone");
    assert_eq!(layer(&first, Phase::Base), layer(&second, Phase::Base));
    assert_eq!(layer(&first, Phase::Provision), layer(&second, Phase::Provision));
    assert_ne!(layer(&first, Phase::Application), layer(&second, Phase::Application));
    assert_ne!(first.image, second.image);
    assert_eq!(first.changes, second.changes);

    site.write("README", "changes nothing that is in the image\n");
    assert_eq!(site.build(&hello(), "third").unwrap().image, second.image);
    assert!(site.images.examine().unwrap().is_empty());
}

/// What a published image must be: whole by the package manager's own account, every library found, and none of the tools left. Then Apache is started.
const VERDICT: &str = r#"
{
  apt-get check -q > /dev/null || echo "apt: dependencies are broken"
  dpkg --audit
  dpkg --verify | grep -v ' c /' | sed 's/^/dpkg: /'
  for tool in sshd ssh puppet facter ruby gem sudo; do if command -v $tool; then echo "left: $tool"; fi; done
  for path in /etc/ssh /etc/puppet /var/lib/puppet /var/cache/puppet /etc/gapless-build /usr/sbin/policy-rc.d /root/.ssh /tmp/packer-puppet-masterless; do
    if [ -e $path ]; then echo "left: $path"; fi
  done
  grep -E '^(puppet|sshd|_ssh):' /etc/passwd /etc/group
  ldd /usr/sbin/apache2 /usr/lib/apache2/modules/*.so | grep 'not found'
} > /srv/verdict 2>&1
exec /usr/local/sbin/apache-foreground
"#;

fn apache_runs_without_the_tools(site: &Site, built: &Built) {
    let upper = site.path("upper");
    fs::create_dir(&upper).unwrap();
    let request = BenchRequest {
        name: "published".into(),
        layers: site.images.unpack(built.image).unwrap().layers,
        upper: upper.clone(),
        command: ["/bin/sh", "-c", VERDICT].map(str::to_owned).into(),
        files: BTreeMap::new(),
        log: site.path("published.log"),
    };
    let bench = site.runtime.block_on(site.bench.open(request)).unwrap();
    let answer = ask(bench.address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ok"), "{answer}");
    let answer = ask(bench.address, "POST /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
    assert!(answer.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{answer}");
    assert_eq!(fs::read_to_string(upper.join("srv/verdict")).unwrap(), "");
    site.runtime.block_on(site.bench.close("published")).unwrap();
}

/// Asks as soon as something answers, for at most 30 seconds. Apache opens its port twice while it starts, so the first connection may be reset.
fn ask(address: IpAddr, request: &str) -> String {
    let once = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(1))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match once() {
            Ok(answer) if !answer.is_empty() => return answer,
            other => assert!(Instant::now() < deadline, "nothing answers: {other:?}"),
        }
    }
}

#[test]
fn a_package_that_is_also_a_tool_stays_when_the_project_declares_it() {
    let site = Site::new();
    site.write("packer/web.json", &template(PUPPET));
    // libyaml comes with Puppet, as a dependency; sudo is a tool itself.
    site.write("puppet/site.pp", "package { ['libyaml-0-2', 'sudo']: ensure => installed }\n");
    let built = site.build(&provisioned(), "declared").unwrap();
    let list = site.images.blobs.read(built.metadata["packages"].parse().unwrap()).unwrap();
    let list = String::from_utf8(list).unwrap();
    assert!(list.contains("libyaml-0-2 ") && list.contains("sudo "), "{list}");
    assert!(!list.contains("puppet") && !list.contains("openssh"), "{list}");
    let tree = &site.images.unpack(built.image).unwrap().layers[1];
    assert!(tree.join("usr/bin/sudo").is_file() && !tree.join("usr/bin/puppet").exists());
}

#[test]
fn the_tools_own_words_are_shown_when_a_template_or_a_manifest_is_broken() {
    let site = Site::new();
    let cases = [
        ("not json", "{ \"builders\": [\n".to_owned(), "", "At line 2"),
        ("unknown provisioner", template(r#"{ "type": "shel", "inline": ["true"] }"#), "", "Unknown provisioner shel"),
        ("broken manifest", template(PUPPET), "file { '/srv/a'\n  ensure => file }\n", "line: 2"),
        ("failing script", template(r#"{ "type": "shell", "inline": ["echo no such luck >&2; exit 7"] }"#), "", "no such luck"),
    ];
    for (number, (name, template, manifest, expected)) in cases.into_iter().enumerate() {
        site.write("packer/web.json", &template);
        site.write("puppet/site.pp", &format!("{manifest}# {number}\n"));
        let error = site.build(&provisioned(), &number.to_string()).expect_err(name);
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        eprintln!("{name}: {error}");
    }
}

#[test]
fn a_build_whose_second_puppet_run_changes_something_is_rejected() {
    let site = Site::new();
    site.write("packer/web.json", &template(PUPPET));
    site.write("puppet/site.pp", "exec { '/usr/bin/touch /srv/again': }\nfile { '/srv/once': ensure => file }\n");
    let error = site.build(&provisioned(), "twice").unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("Exec[/usr/bin/touch /srv/again]") && text.contains("site.pp:1"), "{text}");
    assert!(!text.contains("/srv/once"), "{text}");
}

/// Looks for what a project must not see, as a template would: on the machine that Packer runs on.
const SPY: &str = r#"
{ "type": "shell-local", "inline": [
    "cat web.json packer/web.json 2> /dev/null | grep -q shell-local && echo 'own files: read'",
    "id -u",
    "for path in SECRET /etc/shadow /root/.ssh /proc/1/root/etc/shadow /run/gapless REPOSITORY; do ls -l $path > /dev/null 2>&1 && echo \"open: $path\"; done",
    "for path in / /usr /etc /project /gapless; do touch $path/mark 2> /dev/null && echo \"written: $path\"; done",
    "cat SECRET"
] }"#;

#[test]
fn a_template_cannot_read_the_servers_state_or_keys() {
    let site = Site::new();
    let secret = site.path("state").join("signing.key");
    fs::write(&secret, "the installation's own key").unwrap();
    // Readable for everybody, so that only the fence hides it.
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let spy = SPY.replace("SECRET", secret.to_str().unwrap()).replace("REPOSITORY", site.repository().to_str().unwrap());
    site.write("packer/web.json", &template(&spy));
    let error = site.build(&provisioned(), "spy").unwrap_err();
    let output = fs::read_to_string(site.path("logs/spy/build.log")).unwrap();
    assert!(error.to_string().contains("signing.key: No such file or directory"), "{error}");
    assert!(output.contains("own files: read") && output.contains("1000"), "{output}");
    for found in ["open: ", "written: ", "the installation's own key"] {
        assert!(!output.contains(found), "{output}");
    }
}
