//! The tools layer: what only the build node needs. It lies between the base and what the provision writes, and is not in the published image.

use crate::base::{Base, BaseCache, mmdebstrap};
use crate::input::Inputs;
use crate::layer;
use crate::lock;
use crate::progress::{Listener, Phase};
use crate::view::View;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::inside;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

/// Counted up when the way the tools are installed changes.
const TOOLS_VERSION: u32 = 1;

/// The most bytes of a host name or a resolver's settings: a few lines.
const NODE_FILE_LIMIT: u64 = 64 * 1024;

/// Installs the tools, inside the new system. Ubuntu up to 22.04 and Debian up to 11 call Puppet's package `puppet`.
const INSTALL: &str = r#"set -eu
export DEBIAN_FRONTEND=noninteractive
printf 'force-unsafe-io\n' > /etc/dpkg/dpkg.cfg.d/gapless-build
apt-get update -q
puppet=puppet-agent
apt-cache show puppet-agent > /dev/null 2>&1 || puppet=puppet
dpkg-query -W -f '${Package}\n' | sort > /tmp/before
apt-get install -q -y --no-install-recommends openssh-server sudo "$puppet"
mkdir -p /etc/gapless-build
printf '%s\n' openssh-server sudo "$puppet" > /etc/gapless-build/tools
cp /etc/passwd /etc/gapless-build/passwd
rm -rf /tmp/before /var/lib/apt/lists /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt/* /var/log/dpkg.log
mkdir -p /var/lib/apt/lists/partial
"#;

/// Takes the tools out again, inside the build node, when the provision is done. Whatever the project installed keeps what it depends on, because apt
/// knows; whatever the project declared to Puppet stays also when it was a tool.
pub(crate) const REMOVE: &str = r#"set -eu
export DEBIAN_FRONTEND=noninteractive SUDO_FORCE_REMOVE=yes
declared=$(sed -n 's/^  Package\[\(.*\)\]:$/\1/p' /run/gapless/first.yaml /run/gapless/second.yaml 2> /dev/null | sort -u)
for package in $declared; do
  if dpkg-query -W "$package" > /dev/null 2>&1; then apt-mark manual "$package" > /dev/null; fi
done
purged=
for tool in $(cat /etc/gapless-build/tools); do
  case " $(echo $declared) " in *" $tool "*) ;; *) purged="$purged $tool" ;; esac
done
[ -z "$purged" ] || apt-get purge -q -y --auto-remove $purged
case "$purged" in *puppet*)
  rm -rf /etc/puppet /var/lib/puppet /var/cache/puppet /var/log/puppet
  if getent passwd puppet > /dev/null; then userdel puppet; fi
  if getent group puppet > /dev/null; then groupdel puppet; fi ;;
esac
if ! [ -e /usr/bin/ssh ] && getent group _ssh > /dev/null; then groupdel _ssh; fi
apt-get check -q
rm -f /etc/ssh/ssh_host_* /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/gapless-build
rm -rf /etc/gapless-build /var/lib/apt/lists /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt/* /var/log/dpkg.log /tmp/packer-puppet-masterless
mkdir -p /var/lib/apt/lists/partial
rmdir /etc/ssh 2> /dev/null || true
for log in $(find /var/log -type f); do : > "$log"; done
"#;

impl BaseCache {
    /// The layer of tools for this base, and whether it was there already. Blocks the thread, for some 10 seconds when it has to be made.
    pub(crate) fn tools(&self, base: &Base, listener: &Listener) -> Result<(Digest, bool), Error> {
        let mut inputs = Inputs::new("tools", TOOLS_VERSION);
        inputs.add("base", base.layer()?.hex().as_bytes());
        inputs.add("script", INSTALL.as_bytes());
        let key = inputs.key();
        let _lock = lock::take(&self.folder.join(format!("tools-{}.lock", key.hex())))?;
        if let Some(layer) = self.record::<String>("tools", key)? {
            let layer = layer.parse().map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt))?;
            if self.blobs.contains(layer) {
                return Ok((layer, true));
            }
        }
        let layer = self.in_scratch(&format!("tools-{}", key.hex()), |scratch| self.install(scratch, base, listener))?;
        self.keep_record("tools", key, &layer.to_string())?;
        Ok((layer, false))
    }

    fn install(&self, scratch: &Path, base: &Base, listener: &Listener) -> Result<Digest, Error> {
        let (lower, root, script) = (scratch.join("base"), scratch.join("root"), scratch.join("install.sh"));
        fs::create_dir(&lower).context(|| format!("making {}", lower.display()))?;
        let mut reader = self.blobs.reader(base.layer()?)?;
        layer::unpack(&mut (&mut reader as &mut dyn Read), &lower, 0)?;
        reader.finish()?;
        fs::write(&script, INSTALL).context(|| format!("writing {}", script.display()))?;
        let mut command = mmdebstrap(scratch, "custom");
        // The folders are given by the environment, so that no path can be read as shell.
        command.env("GAPLESS_BASE", &lower).env("GAPLESS_SCRIPT", &script);
        command.args([
            "--skip=update",
            r#"--setup-hook=cp -a "$GAPLESS_BASE/." "$1/"; rm -f "$1/etc/resolv.conf"; cp /etc/resolv.conf "$1/etc/resolv.conf""#,
        ]);
        command.arg(r#"--customize-hook=chroot "$1" sh -s < "$GAPLESS_SCRIPT""#);
        command.arg("").arg(&root);
        self.run(command, Phase::Tools, listener)?;
        for name in ["etc/resolv.conf", "etc/hostname"] {
            put_back(&lower, &root, name).context(|| format!("taking the host's {name} out of the tools"))?;
        }
        let difference = View::of(&[&root], 0)?.difference(&View::of(&[&lower], 0)?)?;
        self.blobs.put(|writer| layer::pack(&difference, writer)).context(|| "keeping the layer of tools".into())
    }
}

/// Makes a file of `root` what it is in `lower`. A link that a package put there is removed and not followed: it would lead to the host's own file.
fn put_back(lower: &Path, root: &Path, name: &str) -> Result<(), Error> {
    let place = root.join(name);
    let writing = || format!("writing {}", place.display());
    let before = inside::read(lower, Path::new(name), NODE_FILE_LIMIT)?;
    match fs::remove_file(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(writing),
        _ => {}
    }
    File::create_new(&place).and_then(|mut file| file.write_all(&before)).context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_replaces_a_link_and_does_not_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        let (lower, root, host) = (folder.path().join("lower"), folder.path().join("root"), folder.path().join("host"));
        fs::create_dir(&lower).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(&host, "the host's").unwrap();
        fs::write(lower.join("name"), "localhost").unwrap();
        std::os::unix::fs::symlink(&host, root.join("name")).unwrap();
        put_back(&lower, &root, "name").unwrap();
        assert_eq!(fs::read_to_string(&host).unwrap(), "the host's");
        assert_eq!(fs::read_to_string(root.join("name")).unwrap(), "localhost");
    }
}
