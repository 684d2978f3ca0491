# Apache httpd that serves the files in /srv/app, prepared for a node with a read-only root.
class web {
  package { 'apache2':
    ensure => installed,
  }

  file { '/etc/apache2/apache2.conf':
    ensure  => file,
    source  => 'puppet:///modules/web/apache2.conf',
    require => Package['apache2'],
  }

  file { '/usr/local/sbin/web-foreground':
    ensure => file,
    mode   => '0755',
    source => 'puppet:///modules/web/web-foreground',
  }
}
