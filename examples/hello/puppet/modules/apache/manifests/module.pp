# One enabled module: the links that `a2enmod` would make, known to Puppet, so that the purge of the others leaves them alone.
define apache::module () {
  file { "/etc/apache2/mods-enabled/${name}.load":
    ensure => link,
    target => "../mods-available/${name}.load",
  }

  # Few modules come with settings. Those of mpm_event and cgid are in apache2.conf: the package's would come after them and win.
  if $name in ['alias', 'deflate', 'dir', 'mime', 'negotiation', 'reqtimeout', 'setenvif', 'status'] {
    file { "/etc/apache2/mods-enabled/${name}.conf":
      ensure => link,
      target => "../mods-available/${name}.conf",
    }
  }
}
