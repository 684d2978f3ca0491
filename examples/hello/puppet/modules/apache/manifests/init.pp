# Apache httpd from the distribution's package, prepared for a node with a read-only root.
#
# @param user     the system user (and group) whose rights the workers have
# @param modules  the modules that are enabled; all others, but the ones Apache cannot start without, are disabled
# @param workers  requests that one node serves at the same time
class apache (
  String[1]        $user,
  Array[String[1]] $modules = ['alias', 'mime'],
  Integer[32]      $workers = 256,
) {
  # An event MPM needs its authorization core; `dir` is what answers for a folder.
  $needed = ['mpm_event', 'authz_core', 'authz_host', 'dir']
  $enabled = unique($needed + $modules)

  package { 'apache2':
    ensure => installed,
  }

  group { $user:
    ensure => present,
    system => true,
  }

  user { $user:
    ensure     => present,
    system     => true,
    gid        => $user,
    home       => '/nonexistent',
    shell      => '/usr/sbin/nologin',
    managehome => false,
    require    => Group[$user],
  }

  file { '/etc/apache2/apache2.conf':
    ensure  => file,
    content => epp('apache/apache2.conf.epp', { 'user' => $user, 'workers' => $workers }),
    require => Package['apache2'],
  }

  # The set of enabled modules is exactly the declared one: what the package enabled by itself is purged.
  file { '/etc/apache2/mods-enabled':
    ensure  => directory,
    recurse => true,
    purge   => true,
    force   => true,
    require => Package['apache2'],
  }

  apache::module { $enabled: }

  file { '/etc/apache2/sites-enabled':
    ensure  => directory,
    recurse => true,
    purge   => true,
    force   => true,
    require => Package['apache2'],
  }

  file { '/usr/local/sbin/apache-foreground':
    ensure => file,
    mode   => '0755',
    source => 'puppet:///modules/apache/apache-foreground',
  }
}
