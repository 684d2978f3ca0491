# What every node of hello/web is: Apache, a service user, and one virtual host that serves /srv/app.
#
# Nothing here starts a service. A node runs one command (see `command` in gapless.hcl), and Puppet runs only while the image is built.
node default {
  class { 'apache':
    user    => 'hello',
    workers => 256,
    modules => ['alias', 'cgid', 'headers', 'include', 'mime', 'reqtimeout'],
  }

  apache::vhost { 'hello':
    docroot  => '/srv/app/public',
    cgi_root => '/srv/app/cgi',
    aliases  => { '/large' => '/srv/data/large.txt' },
    scripts  => ['healthz', 'slow', 'stream', 'upload'],
  }
}
